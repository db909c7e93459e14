"""The pictures show the numbers that they are given."""

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxcnn.training.pictures import confusion, curves, filters, mistakes, saliency


def draw(figure: Figure) -> None:
    figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")


@pytest.mark.parametrize("epochs", [1, 3])
def test_curves(epochs: int) -> None:
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    history = [{"epoch": e} | {n: (i + 1) / 5 / e for i, n in enumerate(names)} for e in (1, 2, 3)]
    figure = curves(history[:epochs])
    draw(figure)
    lines = [line for axes in figure.axes for line in axes.lines]
    for line, name in zip(lines, names, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), range(1, epochs + 1))
        values = [metrics[name] for metrics in history[:epochs]]
        np.testing.assert_array_equal(line.get_ydata(), values)


def test_confusion_has_true_classes_in_rows() -> None:
    figure = confusion(np.array([0, 0, 0, 1, 2]), np.array([0, 0, 2, 1, 2]))
    draw(figure)
    (axes,) = figure.axes
    counts = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "2", (0, 2): "1", (1, 1): "1", (2, 2): "1"}
    assert axes.get_title("left") == "Test images: 4 of 5 right (80.0%)"


@pytest.mark.parametrize(("shape", "shown"), [((5, 5, 1, 6), 6), ((3, 3, 3, 64), 16)])
def test_filters_are_scaled_symmetrically(shape: tuple[int, ...], shown: int) -> None:
    kernel = np.random.default_rng(0).normal(size=shape)
    figure = filters(kernel, np.zeros(shape), "conv1/kernel")
    draw(figure)
    images = [axes.images[0] for axes in figure.axes]
    assert len(images) == 2 * shown
    for index, image in enumerate(images[:shown]):
        np.testing.assert_array_equal(image.get_array(), kernel.mean(2)[..., index])
        low, high = image.get_clim()
        assert -low == high == np.abs(kernel.mean(2)[..., :shown]).max()
    assert images[-1].get_clim() == (-1, 1)


def texts(axes: Axes, which: str) -> list[str]:
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]


def test_confusion_has_the_classes_names() -> None:
    names = ["cat", "a very long name of a class", r"$\frac$"]  # no formula
    figure = confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), names)
    draw(figure)
    (axes,) = figure.axes
    assert texts(axes, "x") == texts(axes, "y") == ["cat", "a very long name of…", r"$\frac$"]
    assert axes.images[0].get_array().shape == (3, 3)
    assert [text.get_text() for text in axes.texts] == ["1", "1", "1"]


def test_confusion_of_many_classes_has_no_text_in_cells_and_few_names() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, 500)
    names = [f"class {n}" for n in range(100)]
    figure = confusion(labels, labels, names)
    draw(figure)
    (axes,) = figure.axes
    assert len(axes.texts) == 0
    assert texts(axes, "x") == texts(axes, "y") == names[::4]


def images_of(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    images = np.random.default_rng(0).random((40, *shape))
    return (255 * images).astype(dtype) if dtype == "uint8" else images.astype(dtype)


@pytest.mark.parametrize(
    ("wrong", "shape", "dtype"),
    [(1, (8, 8, 1), "float32"), (7, (6, 9, 3), "uint8"), (30, (6, 9, 3), "float32")],
)
def test_mistakes_are_the_worst_ones(wrong: int, shape: tuple[int, ...], dtype: str) -> None:
    images = images_of(shape, dtype)
    labels = np.arange(40) % 10
    predictions = np.where(np.arange(40) < wrong, (labels + 1) % 10, labels)
    # The later the image, the worse.
    probabilities = np.full((40, 10), 0.0)
    likely = 0.6 + np.arange(40) / 100
    probabilities[np.arange(40), predictions] = likely
    probabilities[np.arange(40), labels] += 1 - likely
    figure = mistakes(images, labels, predictions, probabilities, [str(n) for n in range(10)])
    draw(figure)
    drawn = [axes for axes in figure.axes if axes.images]
    shown = min(wrong, 25)
    assert len(drawn) == shown
    for n, axes in zip(range(wrong - 1, wrong - 1 - shown, -1), drawn, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), images[n].squeeze())
        title = f"{labels[n]} taken for {predictions[n]}, {60 + n} %"
        assert axes.get_title("left") == title
    ending = ": the 25 worst" if wrong > 25 else ""
    assert figure.get_suptitle() == f"{wrong} of 40 test images wrong{ending}"


def test_mistakes_with_long_names_have_two_lines() -> None:
    names = ["aquarium_fish", "a very long name of a class"]
    one, other = np.array([0]), np.array([1])
    figure = mistakes(images_of((8, 8, 1), "uint8")[:1], one, other, np.array([[0.1, 0.9]]), names)
    draw(figure)
    assert figure.axes[0].get_title("left") == "aquarium_fish taken for\na very long nam…, 90 %"


def test_where_nothing_is_wrong_the_figure_says_so() -> None:
    labels = np.arange(40) % 2
    images = images_of((8, 8, 1), "uint8")
    figure = mistakes(images, labels, labels, np.eye(2)[labels], ["0", "1"])
    draw(figure)
    assert figure.get_suptitle() == "All 40 test images right"
    assert figure.axes == []


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8, 1), "float32"), ((6, 9, 3), "uint8")])
@pytest.mark.parametrize("empty", [False, True])
def test_saliency_is_drawn_over_the_picture(
    shape: tuple[int, ...], dtype: str, empty: bool
) -> None:
    image = images_of(shape, dtype)[0]
    looked = np.zeros(shape[:2]) if empty else np.random.default_rng(1).random(shape[:2])
    figure = saliency(image, looked, r"$\frac$, 97.1 %")
    draw(figure)
    left, right = figure.axes
    assert left.get_title("left") == r"$\frac$, 97.1 %"
    np.testing.assert_array_equal(left.images[0].get_array(), image.squeeze())
    under, over = right.images
    assert under.get_array().shape == shape[:2]
    np.testing.assert_array_equal(over.get_array(), looked)
    assert over.get_clim() == (0, looked.max() or 1)
    low, high = over.cmap([0.0, 1.0])
    assert low[3] == 0  # clear
    assert high[3] == 1
