"""The two worked examples of the notes, drawn: `python scripts/figures/notes.py` writes notes.png.

Every number in the picture is computed by jaxcnn when it is drawn.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxcnn


def convolution() -> list[tuple[str, Array]]:
    """The notes' image with 25 in the middle, and what the middle output's gradient shows."""
    image = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(25.0)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1, 0, 0].set(1.0)
    y, vjp = jax.vjp(jaxcnn.conv, image, kernel)
    dy = jnp.zeros_like(y).at[0, 1, 1, 0].set(1.0)
    _, dkernel = vjp(dy)
    return [
        ("x\nthe image", image[0, :, :, 0]),
        ("kernel", kernel[:, :, 0, 0]),
        ("y = conv(x, kernel)", y[0, :, :, 0]),
        ("dy\nthe middle output's", dy[0, :, :, 0]),
        ("dkernel\nis the image", dkernel[:, :, 0, 0]),
    ]


def pooling() -> list[tuple[str, Array]]:
    """A 4x4 image under a 2x2 max pool."""
    image = jnp.array([[1.0, 2, 8, 3], [4, 3, 1, 0], [5, 0, 1, 2], [1, 6, 9, 4]])
    y, vjp = jax.vjp(lambda x: jaxcnn.max_pool(x, (2, 2), (2, 2)), image[None, :, :, None])
    dy = jnp.array([[0.1, -0.2], [0.3, 0.4]])
    (dx,) = vjp(dy[None, :, :, None])
    return [
        ("x\nthe image", image),
        ("y = max_pool(x)", y[0, :, :, 0]),
        ("dy", dy),
        ("dx\nat the winners' places", dx[0, :, :, 0]),
    ]


def draw_matrix(axes: Axes, title: str, matrix: Array) -> None:
    values = np.asarray(matrix)
    limit = np.abs(values).max()
    axes.imshow(values, cmap="RdBu", vmin=-1.6 * limit, vmax=1.6 * limit)
    axes.set_title(title, fontsize=11)
    rows, columns = values.shape
    axes.set_xticks(np.arange(columns + 1) - 0.5, [])
    axes.set_yticks(np.arange(rows + 1) - 0.5, [])
    axes.tick_params(length=0)
    axes.grid(color="white", linewidth=2)
    for row, column in np.ndindex(rows, columns):
        axes.text(column, row, f"{values[row, column]:g}", ha="center", va="center", fontsize=12)


def main() -> None:
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    rows = figure.subfigures(2, 1, squeeze=False)[:, 0]
    titles = ["Convolution: forward and backward", "Max pooling: forward and backward"]
    for row, title, matrices in zip(rows, titles, [convolution(), pooling()], strict=True):
        row.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
        for axes, (name, matrix) in zip(row.subplots(1, len(matrices)), matrices, strict=True):
            draw_matrix(axes, name, matrix)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
