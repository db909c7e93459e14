"""The pictures of a run: its curves, its confusion matrix, its first kernels and their gradients.

Each function draws into a new `Figure` and returns it; none touches pyplot's global state.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

COLOURS = {"train": "#8a94a6", "test": "#1f5fbf"}
INK, LINE = "#2b2f36", "#c9ced6"


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


def confusion(labels: np.ndarray, predictions: np.ndarray) -> Figure:
    """How many images of each class (row) were taken for each class (column)."""
    classes = int(max(labels.max(), predictions.max())) + 1
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predictions), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            wrong = row != column
            colour = "#c0392b" if wrong else "white" if shares[row, column] > 0.5 else INK
            weight = "bold" if wrong else "normal"
            style: Any = {"color": colour, "weight": weight, "ha": "center", "va": "center"}
            axes.text(column, row, str(count), **style)
    right = int(np.trace(counts))
    axes.set_title(
        f"Test images: {right} of {len(labels)} right ({right / len(labels):.1%})",
        loc="left",
        fontweight="bold",
        color=INK,
    )
    axes.set_xlabel("predicted class", color=INK)
    axes.set_ylabel("true class", color=INK)
    axes.set_xticks(range(classes))
    axes.set_yticks(range(classes))
    # Thin white lines between the cells.
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
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
