"""The pictures show the numbers that they are given."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxcnn.training.pictures import confusion, curves, filters


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
