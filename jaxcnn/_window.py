"""The geometry of windows, once, for convolution and pooling.

Along one spatial axis a window of `k` taps, `d` apart, moves in steps of `s` over an axis of `n`
elements with `lo` elements of padding before it and `hi` behind. Output `o` meets, through tap `t`,
the element

    i = s·o + d·t - lo                                                                       (W)

(where a convolution dilates its input, `e - 1` zeros stand between the elements, and `e·i` is on
the left). Every forward and backward pass in this package is a sum over the triples (i, o, t) that
solve it: forward gathers over `t` for each `o`, the input's gradient over `o` and `t` for each `i`,
the kernel's gradient over `o` for each `t`.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


class Window(NamedTuple):
    """A window's geometry: each field has an entry for each spatial axis.

    Hashable, and so fit to be a static argument of a jitted rule.
    """

    size: Sizes  # n: elements of the axis
    taps: Sizes  # k
    strides: Sizes  # s
    pads: Pads  # (lo, hi); negative pads crop
    dilation: Sizes  # d
    input_dilation: Sizes  # e

    @property
    def outputs(self) -> Sizes:
        """The number of windows that fit into each padded axis.

        >>> Window((28,), (5,), (1,), ((0, 0),), (1,), (1,)).outputs
        (24,)
        """
        return tuple(
            max((span(n, e) + lo + hi - span(k, d)) // s + 1, 0)
            for n, k, s, (lo, hi), d, e in zip(*self, strict=True)
        )

    def offsets(self) -> Iterator[Sizes]:
        """`d·t` of each tap, along each axis, in window order: the last axis moves fastest."""
        return itertools.product(
            *(range(0, span(k, d), d) for k, d in zip(self.taps, self.dilation, strict=True))
        )

    @property
    def input_grad_pads(self) -> Pads:
        """The padding under which a window over the output's cotangent meets what (W) says.

        With `s - 1` zeros between its elements, `dy[o]` stands at `s·o`, and (W) solved for that is
        `s·o = e·i + d·t' - (span - 1 - lo)` with the flipped tap `t' = k - 1 - t`: a window of
        stride `e` and dilation `d`, `span - 1 - lo` before; and behind, what makes `n` outputs.

        >>> Window((28,), (5,), (1,), ((0, 0),), (1,), (1,)).input_grad_pads
        ((4, 4),)
        """
        return tuple(
            (low := span(k, d) - 1 - lo, span(n, e) - 1 + span(k, d) - span(outputs, s) - low)
            for n, k, s, (lo, _), d, e, outputs in zip(*self, self.outputs, strict=True)
        )

    @property
    def kernel_grad_pads(self) -> Pads:
        """The padding under which the output's cotangent, moved over `x`, meets what (W) says.

        As (W) stands, with `o` and `t` in each other's places: `dy` is the window, its taps `s`
        apart, and moves in steps of `d`: `lo` before, and behind, what makes `k` outputs. That may
        be less than none (a crop), where the last elements met no window.

        >>> Window((6,), (3,), (2,), ((0, 0),), (1,), (1,)).kernel_grad_pads
        ((0, -1),)
        """
        return tuple(
            (lo, (k - 1) * d + span(outputs, s) - span(n, e) - lo)
            for n, k, s, (lo, _), d, e, outputs in zip(*self, self.outputs, strict=True)
        )

    def inside(self) -> list[np.ndarray]:
        """For each axis, whether `x` has an element there: of shape (outputs, taps)."""
        axes = []
        for n, k, s, (lo, _), d, e, outputs in zip(*self, self.outputs, strict=True):
            place = s * np.arange(outputs)[:, None] + d * np.arange(k) - lo
            axes.append((place >= 0) & (place < span(n, e)) & (place % e == 0))
        return axes

    def first_inside(self) -> np.ndarray:
        """For each output, the number of the first tap, in window order, that is not padding.

        Of shape `outputs`; some tap where the whole window is padding.
        """
        first = np.zeros((), int)
        for inside in self.inside():
            first = first[..., None] * inside.shape[1] + inside.argmax(1)
        return first


def span(taps: int, dilation: int) -> int:
    """The number of elements from a window's first tap to its last, both included."""
    return (taps - 1) * dilation + 1 if taps else 0


def same_pad(size: int, taps: int, stride: int, dilation: int, *, lower: bool) -> tuple[int, int]:
    """The padding with which `ceil(size / stride)` windows fit: lax's SAME (or SAME_LOWER).

    An odd element goes behind the axis (before it, where `lower`).

    >>> same_pad(28, taps=2, stride=1, dilation=1, lower=False)
    (0, 1)
    """
    windows = -(-size // stride)
    total = max((windows - 1) * stride + span(taps, dilation) - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)
