"""The pictures of a run: its curves, confusions, worst mistakes, first kernels and their gradients.

And what a trained model looked at.

Each function draws into a new `Figure` and returns it; none touches pyplot's global state.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from jaxcnn.training.evaluation import counts, worst

COLOURS = {"train": "#8a94a6", "test": "#1f5fbf"}
INK, LINE, RED = "#2b2f36", "#c9ced6", "#c0392b"


def curves(history: list[dict[str, float]]) -> Figure:
    """Loss and accuracy of both splits over the epochs, from the metrics of each."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = [metrics["epoch"] for metrics in history]
    names = {"loss": "{:.4f}", "accuracy": "{:.1%}"}
    for axes, (name, form) in zip(figure.subplots(1, 2), names.items(), strict=True):
        for split, colour in COLOURS.items():
            values = [metrics[f"{split}_{name}"] for metrics in history]
            label = f"{split}  {form.format(values[-1])}"
            axes.plot(epochs, values, "o-", color=colour, linewidth=2, markersize=4, label=label)
        axes.set_title(name.capitalize(), loc="left", fontweight="bold", color=INK)
        axes.set_xlabel("epoch", color=INK)
        axes.set_xlim(0.5, len(history) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", color="#e6e8ec")
        axes.legend(frameon=False, labelcolor=INK)
        _bare(axes)
    loss, accuracy = figure.axes
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter("{x:g}")
    loss.yaxis.set_minor_locator(NullLocator())
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def confusion(
    labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str] | None = None
) -> Figure:
    """How many images of each class (row) were taken for each class (column).

    The counts are in the cells of up to 20 classes; of more, only their shares of the row, as
    colours, and the names of some classes.

    Args:
        labels, predictions: `(N,)`, integers from 0.
        classes: the names; without them, the numbers that there are.
    """
    if classes is None:
        classes = [str(n) for n in range(int(max(labels.max(), predictions.max())) + 1)]
    number = len(classes)
    found = counts(labels, predictions, number)
    shares = found / np.maximum(found.sum(1, keepdims=True), 1)
    few = number <= 20
    side = 6.4 if number <= 10 else 9.6
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    # Among many cells a few mistakes of a class must be seen, too: the root of a share is larger.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(1 if few else 0.5, vmin=0, vmax=1))
    for (row, column), count in np.ndenumerate(found):
        if few and count:
            wrong = row != column
            colour = RED if wrong else "white" if shares[row, column] > 0.5 else INK
            weight = "bold" if wrong else "normal"
            style: Any = {"color": colour, "weight": weight, "ha": "center", "va": "center"}
            axes.text(column, row, str(count), **style)
    right = int(np.trace(found))
    axes.set_title(
        f"Test images: {right} of {len(labels)} right ({right / len(labels):.1%})",
        loc="left",
        fontweight="bold",
        color=INK,
    )
    axes.set_xlabel("predicted class", color=INK)
    axes.set_ylabel("true class", color=INK)
    named = range(0, number, -(-number // 25))
    names = [_shortened(classes[n]) for n in named]
    turned: Any = {"rotation": 90} if max(map(len, names)) > 3 else {}
    axes.set_xticks(named, names, parse_math=False, **turned)
    axes.set_yticks(named, names, parse_math=False)
    if few:  # thin white lines between the cells
        axes.set_xticks(np.arange(number + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(number + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return figure


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> Figure:
    """The images that were classified wrong, up to 25 of them, the worst first.

    Above each is what it is taken for, and how likely that is to the model.

    Args:
        images: `(N, height, width, channels)`, bytes, or floats from 0 to 1.
        labels, predictions: `(N,)`, integers from 0.
        probabilities: `(N, classes)`.
        classes: the names.
    """
    chosen = worst(labels, predictions, probabilities)
    wrong = int((labels != predictions).sum())
    title = f"{wrong} of {len(labels)} test images wrong"
    if wrong > len(chosen):
        title += f": the {len(chosen)} worst"
    if not wrong:
        title = f"All {len(labels)} test images right"
    columns = min(5, len(chosen))
    rows = -(-len(chosen) // 5)
    figure = Figure(figsize=(1.9 * max(columns, 1), 2.2 * rows + 0.5), layout="constrained")
    figure.suptitle(title, x=0, ha="left", fontsize="large", fontweight="bold", color=INK)
    if not wrong:
        return figure
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if place >= len(chosen):
            axes.set_axis_off()
            continue
        n = chosen[place]
        true, taken = (_shortened(classes[which[n]], 16) for which in (labels, predictions))
        likely = f"{probabilities[n, predictions[n]]:.0%}"[:-1]
        said = f"{true} taken for {taken}, {likely} %"
        if len(said) > 26:
            said = f"{true} taken for\n{taken}, {likely} %"
        style: Any = {"loc": "left", "fontsize": 8, "color": INK, "parse_math": False}
        _show(axes, images[n])
        axes.set_title(said, **style)
    return figure


def saliency(image: np.ndarray, map: np.ndarray, caption: str) -> Figure:
    """A picture, and beside it, over the same in grey, how much each pixel moves the class's logit.

    Args:
        image: `(height, width, channels)`, bytes, or floats from 0 to 1.
        map: `(height, width)`, of `jaxcnn.training.saliency`.
        caption: what it was taken for.
    """
    figure = Figure(figsize=(8.2, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _show(left, image)
    left.set_title(caption, loc="left", fontweight="bold", color=INK, parse_math=False)
    grey = image.mean(-1) / (255 if np.issubdtype(image.dtype, np.integer) else 1)
    # Paler than it is, so that the colours above it are seen.
    _show(right, 1 - (1 - grey[..., None]) * 0.4)
    limit = float(map.max()) or 1.0
    colours = colormaps["Reds"](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0, 1, 256)  # clear where the map is 0
    shown = right.imshow(map, cmap=ListedColormap(colours), vmin=0, vmax=limit)
    right.set_title("|∂logit / ∂pixel|", loc="left", fontweight="bold", color=INK)
    bar = figure.colorbar(shown, cax=right.inset_axes((1.03, 0, 0.03, 1)))
    bar.outline.set_visible(False)
    return figure


def filters(kernel: np.ndarray, gradient: np.ndarray, name: str) -> Figure:
    """Kernels `(height, width, I, O)` and below each its gradient; at most 16, mean over inputs."""
    count = min(kernel.shape[-1], 16)
    figure = Figure(figsize=(1.6 * count, 3.8))
    grid = figure.subplots(2, count, squeeze=False, gridspec_kw={"wspace": 0.08, "hspace": 0.3})
    titles = (name, "its gradient in the last step")
    for row, values, title in zip(grid, (kernel, gradient), titles, strict=True):
        images = values.mean(2)[..., :count]
        # Symmetric about zero, which is white: red adds, blue takes away.
        limit = float(np.abs(images).max()) or 1.0
        for axes, image in zip(row, np.moveaxis(images, -1, 0), strict=True):
            shown = axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(LINE)
        row[0].set_title(title, loc="left", fontweight="bold", color=INK)
        bar = figure.colorbar(shown, cax=row[-1].inset_axes((1.1, 0, 0.08, 1)))
        bar.outline.set_visible(False)
    return figure


def _bare(axes: Axes) -> None:
    """Only the axes that are read from."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=INK)


def _show(axes: Axes, image: np.ndarray) -> None:
    """An image `(height, width, channels)`, of one channel or three; 0 is black."""
    white = 255 if np.issubdtype(image.dtype, np.integer) else 1
    grey: Any = {"cmap": "gray", "vmin": 0, "vmax": white} if image.shape[-1] == 1 else {}
    axes.imshow(image[..., 0] if grey else image, **grey)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(LINE)


def _shortened(name: str, length: int = 20) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
