"""The numbers of an evaluation, by hand."""

import math

import numpy as np
import pytest

from jaxcnn.training.evaluation import counts, per_class, softmax, table, worst

CLASSES = ["cat", "dog", "cow", "[red]"]
LABELS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 1, 1, 2, 1, 1, 0])


def test_counts_have_true_classes_in_rows() -> None:
    found = counts(LABELS, PREDICTIONS, 4)
    np.testing.assert_array_equal(found, [[1, 2, 1, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])


def test_each_class_by_itself() -> None:
    cat, dog, cow, red = per_class(LABELS, PREDICTIONS, CLASSES)
    assert cat == ("cat", 4, 1, 0.25, 0.5, "dog", 2)
    assert dog == ("dog", 2, 2, 1.0, 0.5, None, 0)
    assert cow == ("cow", 1, 0, 0.0, 0.0, "cat", 1)
    assert red[:3] == ("[red]", 0, 0)
    assert math.isnan(red.accuracy)
    assert math.isnan(red.precision)
    assert red.taken_for is None


def test_a_table_of_few_classes_has_them_all() -> None:
    heading, *lines = table(per_class(LABELS, PREDICTIONS, CLASSES)).splitlines()
    assert heading.split("  ")[0] == "class"
    assert [line.split() for line in lines] == [
        ["cat", "4", "1", "25.0%", "50.0%", "dog", "(2)"],
        ["dog", "2", "2", "100.0%", "50.0%"],
        ["cow", "1", "0", "0.0%", "0.0%", "cat", "(1)"],
        ["[red]", "0", "0", "-", "-"],
    ]


def test_a_table_of_many_classes_has_the_ten_worst() -> None:
    names = [f"class {n}" for n in range(30)]
    labels = np.repeat(np.arange(29), 100)  # none of the last class
    right = np.arange(100) < np.arange(29)[:, None]  # n of the nth
    predictions = np.where(right.ravel(), labels, (labels + 1) % 29)
    heading, *lines, note = table(per_class(labels, predictions, names)).splitlines()
    assert heading.startswith("class ")
    assert [line.split()[1] for line in lines] == [str(n) for n in range(10)]
    assert note == "the 10 worst of 30 classes"


def test_a_long_name_is_cut() -> None:
    rows = per_class(np.array([0, 1]), np.array([1, 1]), ["x" * 300, "y" * 300])
    assert max(map(len, table(rows).splitlines())) < 120


def test_softmax_of_any_logits() -> None:
    logits = np.array([[0.0, np.log(3)], [1e4, -1e4], [-1e4, -1e4]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.75], [1, 0], [0.5, 0.5]], rtol=1e-6)
    assert softmax(logits).dtype == np.float64


@pytest.mark.parametrize("count", [1, 2, 25])
def test_the_worst_mistakes_come_first(count: int) -> None:
    probabilities = softmax(np.random.default_rng(0).normal(size=(50, 5)))
    labels, predictions = np.arange(50) % 5, probabilities.argmax(1)
    losses = -np.log(probabilities[np.arange(50), labels])
    wrong = [n for n in range(50) if labels[n] != predictions[n]]
    expected = sorted(wrong, key=lambda n: -losses[n])[:count]
    np.testing.assert_array_equal(worst(labels, predictions, probabilities, count), expected)


def test_where_nothing_is_wrong_nothing_is_worst() -> None:
    labels = np.array([1, 0])
    assert worst(labels, labels, np.eye(2)[labels]).shape == (0,)
