"""Which evaluation a convolution gets on a CPU, by what is static: shapes, dtype and geometry.

    forward, kernel_grad, input_grad    (1), (2) and (3) of `convolution.py`

Each takes `otherwise`, the same sum as one convolution of XLA's: for all other platforms, and for
what is not better evaluated here. What is better was measured, by `scripts/benchmark.py layers`,
on two cores with AVX2, in float32, as the time of `otherwise` over that of the evaluation:

    evaluation    where                              forward      kernel       input's gradient
    depthwise     a group for each channel           10 to 32     8 to 140     20 to 90
    winograd      2x2 to 5x5 taps, no strides,       1.2 to 3.0   2.9 to 21    1.2 to 3.0
                  16 channels and more
    patches       1x1                                1.0 to 3.2   10 to 27     1.1 to 2.7
                  strides, 16 channels and more      0.8 to 1.7   2.3          2.2
                  fewer than 16 channels             3 to 7       1.1 to 1.8   1.5
                  in groups                          3            120, both together
                  all else                           0.5 to 1.0   0.9 to 2.5   0.5 to 1.0
    to few        to 8 channels, from twice as       1.6 to 16
                  many at least

Since then, on two cores with AVX-512, also against what would be taken instead (in brackets):

    evaluation    where                              forward      kernel       input's gradient
    depthwise     a group for each channel                        15 to 200
                  (by sums over images)                           0.9 to 8
                  groups of 2 and 4 channels         5.1 to 39    14 to 920    6.0 to 37
                  (patches)                          1.2 to 6.2   1.3 to 3.3   1.2 to 6.5
                  (patches, 7 shifts by 25 taps)     0.1          1.1
                  (patches, 4 rows)                               0.6
                  (patches, groups of 8)             0.1          0.8          0.1
    patches       from 1 to 6 channels to 16         1.1 to 4.9
                  5x5 from 6 to 16                   0.7 to 1.1
                  from 3 to 24 and 32                1.5 to 6.8
                  from 8 and 12 to 16                0.5 to 1.0
                  images smaller than the kernel     1.1 to 100
                  fewer than 1024 outputs                         0.4 to 1.1
                  1x1, rows in halves (as one)                    1.0 to 1.2
                  few parts as one (in a loop)       1.0 to 1.5   0.9 to 1.2
                  taps by axis (all at once)         0.9 to 1.3   0.9 to 1.2
                  no transpose (written)                                       1.0 to 1.1
                  padded as added (before)                                     1.1 to 1.5
                  9 and 31 taps of one axis                       0.4 to 1.2
                  strides, from 16 and 32 channels   0.5 to 1.2                0.7 to 1.3, and
                  strides, from 64 to 64             0.6 to 2.6                1.6 to 7 where
                  strides, from 64 to 128 and more   1.0 to 2.3                XLA's needs more
                  strides, from 128 and more to 64   1.2 to 2.5                than 32 MiB
                  strides, from 128 to as many       1.0 to 2.4
                  strides of one axis                0.5 to 0.9
                  strides of volumes                 1.4 to 3.3   2 to 22      8 to 600
                  (volumes cut)                      0.8 to 10    0.7 to 10
                  in bands of an image (as one)      0.7 to 3     1.0 to 2.7   0.9 to 1.9
    both          3x3 and more, 12 to 32 channels                 1.2 to 4.7
                  (patches or Winograd's way)                     0.9 to 2.3
                  64 channels to 3 and 8 (the same)               2.5 to 2.8
                  5x5 and 7x7 (the same)                          1.3 to 1.8
                  5x5 from 128 (the same)                         0.7
                  a product of 64 by 64 (the same)                0.4
    winograd      12 and 16 channels to 16           0.4 to 0.6
                  16 to 32, 24 to 24                 0.5 to 0.7
                  32 to 32                           0.9 to 1.4
                  in bands of an image               1.1 to 1.8
                  rows an eighth of the channels                  1.1 to 1.7, both together
                  rows a sixteenth                                1.0 to 1.1, both together
                  dilated, 16 channels               0.4 to 0.7
                  dilated, 32 channels               1.0 to 1.4
                  strides, 5x5 to 16 and 32          0.4 to 0.6
                  strides, 5x5 and more to 64        1.2 to 1.4
                  strides, 5x5 to 16 (patches)                    0.6 to 0.9   1.0 to 1.4
                  strides, 4x4 (patches)                          0.4 to 0.8   0.4 to 0.8
    volumes cut   no strides in an image             1.5 to 15    1.6 to 400, both together

What is cut is a copy, of volumes several times as large as x, and so it is made by parts of the
batch: 4 volumes of 32x64x64 by 5x3x3 taps take 99 ms and 89 MiB, where at once they took 164 and
356.

Windows' sums, for the mean, tap by tap: 1.4 to 7, there; of a lone window 0.4 to 1.0, of windows
side by side 0.6 to 1.3 from 16 channels on, and 1.7 to 3.9 of 3 to 8.

A convolution of few channels with relu and a pool behind it is one evaluation (`benchmark.py
choices --only pooled`). Against the three in turn, by what is above, there:

    evaluation    where                              forward      backward
    pooled        5x5, to 16 channels                0.9 to 4.9   1.4 to 3.7
                  3x3, to 8                          0.9 to 1.1   1.0 to 1.3
    in turn       3x3, to 16; all from and to more   0.4 to 2.1   1.0 to 2.7
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AxisType

from jaxcnn._cpu import cuts, depthwise, patches, pooled_convolution, winograd
from jaxcnn._cpu.parts import (
    CACHE,
    Finish,
    Tree,
    as_it_is,
    images_in_cache,
    images_per_part,
    map_parts,
    once,
    sum_parts,
)
from jaxcnn._order import after
from jaxcnn._taps import FEW, turned
from jaxcnn._window import Window

COPY = 2**21  # elements of a copy of images that is larger than they: 8 MiB in float32
OUTPUTS = 2**10  # for fewer a feature, to turn the kernel's gradient takes longer than its sum
NARROW = 4  # channels of a group, for shifts along them;
SHIFTED = 80  # and shifts times taps, of which there are 75 for two channels and 5x5 taps
LEAST = 12  # channels for Winograd's way, against other ways in here
ALONE = 32  # and forward, where XLA's convolution is the other way
MANY = 128  # and for a kernel's gradient of 5x5 taps, of which it saves but a third
WIDE = 64  # channels, to or from twice as many, for which rows are worth being written by strides
ROW = 25  # entries of a row of x with the taps along one axis
ENTRIES = 2400  # of a kernel of few channels, that is 5x5 from 6 to 16
SQUARE = 64  # a product of so many by so many takes as long as one of 96 by 96
LONG = 8  # taps for a stride, along one axis
TAPS = 64  # at most, of a window whose sum is written out
Sum = Callable[[Array, Array], Tree]  # an array, or what it is finished to


class Problem(NamedTuple):
    """A convolution of so many images, from `channels` to `features`."""

    images: int
    channels: int
    features: int
    window: Window
    groups: int
    exact: bool  # as exact as the sum: not by Winograd's way, nor with zeros that a kernel has not

    @property
    def adjoint(self) -> "Problem":
        """The one whose forward pass is the input's gradient of this, and the reverse."""
        window = self.window
        mirrored = Window(
            window.outputs,
            window.taps,
            window.input_dilation,
            window.input_grad_pads,
            window.dilation,
            window.strides,
        )
        return self._replace(channels=self.features, features=self.channels, window=mirrored)


def forward(
    x: Array,
    kernel: Array,
    window: Window,
    groups: int,
    precision: Any,
    otherwise: Sum,
    finish: Finish = as_it_is,
    of_elements: bool = True,
) -> Tree:
    """`finish(y)` of `x` and the kernel.

    `finish` is a function of each element and its channel, and gives an array of the same shape; or
    (not `of_elements`) one of each whole image, and gives arrays with the batch first.
    """
    problem = Problem(
        x.shape[0], x.shape[-1], kernel.shape[-1], window, groups, _exact(x, precision)
    )
    choose = partial(_forward, finish=finish, of_elements=of_elements)
    return _evaluated(choose, problem, x, kernel, _finished(otherwise, finish))


def kernel_grad(
    x: Array, dy: Array, window: Window, groups: int, precision: Any, otherwise: Sum
) -> Array:
    """`dkernel` of `x` and `dy`."""
    problem = Problem(x.shape[0], x.shape[-1], dy.shape[-1], window, groups, _exact(x, precision))
    return _evaluated(_kernel_grad, problem, x, dy, otherwise)


def input_grad(
    dy: Array, kernel: Array, window: Window, groups: int, precision: Any, otherwise: Sum
) -> Array:
    """`dx` of `dy` and the kernel."""
    channels = kernel.shape[-2] * groups
    problem = Problem(dy.shape[0], channels, dy.shape[-1], window, groups, _exact(dy, precision))
    return _evaluated(_input_grad, problem, dy, kernel, otherwise, _late)


def pooled(
    f: Callable[[Array], Tree],
    x: Array,
    window: Window,
    otherwise: Callable[[Array], Tree] | None = None,
) -> Tree:
    """`f(x)` of images: on a CPU written to memory, and if padded by parts that fit the cache.

    `otherwise(x)`, which is the same, on other platforms; `f` itself where there is none.
    """
    otherwise = otherwise or f
    if x.ndim <= len(window.size) + 1 or not _evaluable(x):
        return otherwise(x)
    padded = set(window.pads) != {(0, 0)}
    by_parts = partial(map_parts, f, images_in_cache(x)) if padded else partial(once, f)
    return lax.platform_dependent(x, cpu=by_parts, default=otherwise)


def written(f: Callable[..., Tree], *given: Tree) -> Tree:
    """`f(*given)`, on a CPU written to memory, as one step: compiled once, wherever it occurs."""
    if not _evaluable(*jax.tree.leaves(given)):
        return f(*given)
    return lax.platform_dependent(*given, cpu=partial(once, f), default=f)


def summed(
    by_taps: Callable[[Array], Array],
    x: Array,
    window: Window,
    otherwise: Callable[[Array], Array],
) -> Array:
    """The windows' sums: tap by tap, but of a lone window, or one of very many taps, or of windows
    side by side with more than a few channels.
    """
    suited = math.prod(window.taps) <= TAPS and math.prod(window.outputs) > 1
    suited = suited and not (_are_side_by_side(window) and x.shape[-1] >= FEW)
    if not suited or x.dtype not in (jnp.float32, jnp.float64):
        return otherwise(x)
    return pooled(by_taps, x, window, otherwise)


def conv_pool(
    x: Array,
    kernel: Array,
    bias: Array | None,
    finish: pooled_convolution.Finish,
    window: Window,
    pool: Window,
    groups: int,
    precision: Any,
    otherwise: Callable[..., tuple[Array, Array]],
) -> tuple[Array, Array]:
    """`finish` of the pool's maxima of a convolution, and of which they are."""
    if not _pooled(x, kernel, window, pool, groups, precision):
        return otherwise(x, kernel, bias)
    evaluate = partial(pooled_convolution.forward, finish=finish, window=window, pool=pool)
    return lax.platform_dependent(x, kernel, bias, cpu=evaluate, default=otherwise)


def conv_pool_grads(
    x: Array,
    kernel: Array,
    winner: Array,
    dy: Array,
    window: Window,
    pool: Window,
    groups: int,
    precision: Any,
    otherwise: Callable[..., tuple[Array, Array, Array]],
) -> tuple[Array, Array, Array]:
    """`dx`, `dkernel` and `dbias` of `dy` at the winners."""
    if not _pooled(x, kernel, window, pool, groups, precision):
        return otherwise(x, kernel, winner, dy)
    evaluate = partial(pooled_convolution.grads, window=window, pool=pool)
    return lax.platform_dependent(x, kernel, winner, dy, cpu=evaluate, default=otherwise)


# The choice --------------------------------------------------------------------------------------


def _finished(evaluate: Sum, finish: Finish) -> Sum:
    """`finish` of the whole sum, where it cannot be done to parts."""
    return lambda x, kernel: finish(evaluate(x, kernel))


def _forward(
    problem: Problem, finish: Finish = as_it_is, of_elements: bool = True, least: int = ALONE
) -> Sum | None:
    _, channels, features, window, groups, exact = problem
    if max(window.input_dilation) > 1:
        evaluate = _input_grad(problem.adjoint)
        of_turned = evaluate and (lambda x, kernel: evaluate(x, turned(kernel, groups)))
        return of_turned and _finished(of_turned, finish)
    if _is_depthwise(problem, 1 if exact else NARROW):
        return partial(depthwise.forward, window=window, finish=finish)
    if by_winograd := _by_winograd(problem, least):
        if of_elements or winograd.bands(window, max(channels, features)) == 1:
            return partial(by_winograd, finish=finish)
        return _finished(by_winograd, finish)
    if cut := _cut(problem, _is_wide(problem, least)):
        return _forward_by_cut(problem, cut, finish, of_elements)
    if _suits_few(problem):
        return partial(patches.forward_to_few, window=window, finish=finish)
    if _suits_rows(problem):
        return partial(
            patches.forward, window=window, finish=finish, groups=groups, blocks=not exact
        )
    return None


def _kernel_grad(problem: Problem, least: int = ALONE) -> Sum | None:
    _, channels, features, window, groups, exact = problem
    if max(window.input_dilation) > 1:
        evaluate = _kernel_grad(problem.adjoint)
        return evaluate and (lambda x, dy: turned(evaluate(dy, x), groups))
    if _is_depthwise(problem, 1 if depthwise.has_few_rows(window) else NARROW):
        within = channels // groups
        return partial(depthwise.kernel_grad, window=window, within=within, exact=exact)
    least = least if max(window.taps) < 5 else MANY
    if _suits_winograd(problem, rows=1 / 8, least=least):
        return partial(winograd.kernel_grad, window=window)
    if cut := _cut(problem, _is_wide(problem, LEAST if max(window.strides) > 1 else least)):
        return _kernel_grad_by_cut(problem, cut)
    many = groups == 1 < max(window.taps) and min(channels, features) >= FEW
    outputs = problem.images * math.prod(window.outputs)
    long = len(window.taps) == 1 and window.taps[0] >= LONG * window.strides[0]
    if many and (long or (max(window.strides) == 1 and outputs < OUTPUTS)):
        return None
    if _suits_both(problem):
        return partial(patches.kernel_grad_of_both, window=window)
    return partial(patches.kernel_grad, window=window, groups=groups)


def _input_grad(problem: Problem, least: int = ALONE) -> Sum | None:
    _, channels, _, window, groups, _ = problem
    if _is_matmul(problem):
        return partial(patches.input_grad_of_one_tap, window=window)
    if max(window.strides) == 1:
        if by_winograd := _by_winograd(problem.adjoint, least):
            return partial(by_winograd, turned=True)
        evaluate = _forward(problem.adjoint, least=least)
        return evaluate and (lambda dy, kernel: evaluate(dy, turned(after(kernel, dy), groups)))
    if _is_depthwise(problem, 1):
        return partial(depthwise.input_grad, window=window)
    if cut := _cut(problem, channels >= FEW and _is_wide(problem, LEAST)):
        return _input_grad_by_cut(problem, cut)
    return partial(patches.input_grad, window=window, groups=groups)


def _by_winograd(problem: Problem, least: int) -> Callable[..., Tree] | None:
    """One after another of the features, where U is large next to the rows that it is of use to."""
    _, channels, features, window, *_ = problem
    large = winograd.SIX**2 * channels * features > winograd.PRODUCTS  # U: then for more rows alone
    if _suits_winograd(problem, rows=1 if large else 1 / 2, least=least):
        return partial(winograd.forward, window=window)
    if _suits_winograd(problem, rows=1 / 8, least=least):
        return partial(winograd.forward_by_features, window=window)
    return None


# By a cut: what suits the smaller problem -------------------------------------------------------


def _forward_by_cut(problem: Problem, cut: cuts.Cut, finish: Finish, of_elements: bool) -> Sum:
    images, smaller = _by_cut(problem, cut)
    whole = not of_elements and cut.images > 1  # an image is several of the smaller problem's
    within, then = (as_it_is, finish) if whole else (finish, as_it_is)
    as_rows = partial(patches.forward, window=cut.window, blocks=not problem.exact, finish=within)
    inner = _forward(smaller, within, of_elements or whole, LEAST) or as_rows

    def evaluate(x: Array, kernel: Array) -> Tree:
        small = cut.kernel(kernel)

        def part(x: Array) -> Tree:
            return then(cut.joined_output(inner(cut.image(x), small)))

        return map_parts(part, images, x)

    return evaluate


def _kernel_grad_by_cut(problem: Problem, cut: cuts.Cut) -> Sum:
    images, smaller = _by_cut(problem, cut)
    inner = _kernel_grad(smaller, LEAST) or partial(patches.kernel_grad, window=cut.window)

    def evaluate(x: Array, dy: Array) -> Array:
        def part(x: Array, dy: Array) -> Array:
            return inner(cut.image(x), cut.output(dy))

        return cut.kernel_grad(sum_parts(part, images, x, dy))

    return evaluate


def _input_grad_by_cut(problem: Problem, cut: cuts.Cut) -> Sum:
    images, smaller = _by_cut(problem, cut)
    as_rows = partial(patches.forward, window=smaller.adjoint.window, blocks=not problem.exact)
    inner = _input_grad(smaller, LEAST) or (lambda dy, kernel: as_rows(dy, turned(kernel, 1)))

    def evaluate(dy: Array, kernel: Array) -> Array:
        small = cut.kernel(after(kernel, dy))

        def part(dy: Array) -> Array:
            return cut.image_grad(inner(cut.output(dy), small))

        return map_parts(part, images, dy)

    return evaluate


def _cut(problem: Problem, wide: bool) -> cuts.Cut | None:
    """The same convolution as one of images, if of volumes; if wide, as one for Winograd's way."""
    window = problem.window
    if problem.groups > 1 or max(window.taps) == 1:
        return None
    if len(window.size) > 2:  # a copy, of which strides would read a part alone
        return cuts.by_first_axis(window) if max(window.strides[1:]) == 1 else None
    if len(window.size) < 2 or not wide:
        return None
    if max(window.strides) > 1:
        cut = cuts.by_strides(window)
    elif max(window.dilation) > 1:
        cut = cuts.by_dilation(window)
    else:
        return None
    more = math.prod((*cut.window.taps, *window.strides)) / math.prod(window.taps)  # zeros
    return cut if _suits_winograd(_by_cut(problem, cut)[1], more) else None


def _is_wide(problem: Problem, least: int) -> bool:
    """By strides the channels become more, not the features; and to 2 taps nothing is saved."""
    channels, features, window = problem.channels, problem.features, problem.window
    if max(window.strides) > 1:
        return features >= 2 * least and min(window.taps) > 4
    return min(channels, features) >= least


def _by_cut(problem: Problem, cut: cuts.Cut) -> tuple[int, Problem]:
    """How many images at a time, and the convolution that they are by the cut.

    All of them, where what is cut is not much larger than x, as by strides or dilation.
    """
    channels = problem.channels * cut.channels
    image = math.prod(problem.window.size) * problem.channels  # elements
    copy = cut.images * math.prod(cut.window.size) * channels
    images = problem.images
    if copy > 2 * image:
        images = images_per_part(images, max(COPY // copy, 1))
    smaller = problem._replace(images=images * cut.images, channels=channels, window=cut.window)
    return images, smaller


def _is_depthwise(problem: Problem, most: int) -> bool:
    """In groups of so many channels at most, to as many: by few shifts and taps."""
    _, channels, features, window, groups, _ = problem
    within = channels // groups
    few = within == 1 or (2 * within - 1) * math.prod(window.taps) <= SHIFTED
    return channels == features and groups > 1 and within <= most and few


def _is_matmul(problem: Problem) -> bool:
    """Of elements alone, and of all their channels."""
    window = problem.window
    return {*window.taps, *window.input_dilation} == {1} and problem.groups == 1


def _suits_winograd(
    problem: Problem, more: float = 1, rows: float = 1 / 2, least: int = LEAST
) -> bool:
    images, channels, features, window, groups, exact = problem
    return (
        not exact
        and groups == 1
        and len(window.taps) == 2
        and all(2 <= taps <= 5 for taps in window.taps)
        and window.strides == window.dilation == (1, 1)
        and min(channels, features) >= least
        and channels * features >= 2 * FEW**2
        and winograd.saving(window) >= 1.5 * more
        and winograd.rows(images, window) >= min(channels, features) * rows  # else U is most work
    )


def _suits_few(problem: Problem) -> bool:
    """Half as many channels out as in, a register of them at most, and z of an image is small."""
    _, channels, features, window, groups, _ = problem
    plain = groups == max(window.strides) == 1 < max(window.taps)
    z = math.prod(window.size) * math.prod(window.taps) * features
    return plain and features <= min(channels // 2, 8) and z <= CACHE


def _suits_rows(problem: Problem) -> bool:
    """Forward, better than by XLA's convolution."""
    _, channels, features, window, groups, _ = problem
    if groups > 1 or max(window.taps) == 1:
        return True
    entries = math.prod(window.taps) * channels * features
    some = 2 * FEW if channels == 3 else FEW
    few = channels < FEW // 2 and features <= some and (channels <= 3 or entries < ENTRIES)
    tiny = any(size < taps for size, taps in zip(window.size, window.taps, strict=True))
    axes, strided = len(window.size), max(window.strides) > 1
    least, most = min(channels, features), max(channels, features)
    wide = axes > 2 or (axes == 2 and least >= WIDE and most >= 2 * WIDE)
    return few or tiny or (strided and wide)


def _suits_both(problem: Problem) -> bool:
    """Of two axes; neither rows so short that a block of windows is better, nor a small product."""
    _, channels, features, window, groups, exact = problem
    plain = not exact and groups == window.strides[0] == 1 and len(window.taps) == 2
    rows, columns = window.taps[-1] * channels, window.taps[0] * features
    return plain and min(window.taps) > 2 and rows >= ROW and max(rows, columns) > SQUARE


def _pooled(
    x: Array, kernel: Array, window: Window, pool: Window, groups: int, precision: Any
) -> bool:
    """Few channels, a batch that fills the registers, and not many more multiplications."""
    if _exact(x, precision) or not _evaluable(x, kernel) or 0 in (*window.size, *pool.outputs):
        return False
    images, channels, features = x.shape[0], x.shape[-1], kernel.shape[-1]
    more = math.prod(pooled_convolution.joint(window, pool).taps) / math.prod(window.taps)
    return (
        groups == max(window.input_dilation) == 1
        and _are_side_by_side(pool)
        and math.prod(pool.taps) <= 9
        and max(channels, features) <= FEW
        and more * features < 1.5 * FEW
        and images >= pooled_convolution.IMAGES * jax.device_count()
    )


def _are_side_by_side(window: Window) -> bool:
    """Windows that meet no element twice, nor any padding."""
    plain = set(window.pads) == {(0, 0)} and max(window.dilation) == 1
    return plain and window.strides == window.taps


# Where there is one ------------------------------------------------------------------------------


def _evaluated(
    choose: Callable[[Problem], Sum | None],
    problem: Problem,
    a: Array,
    b: Array,
    otherwise: Sum,
    order: Callable[[Sum], Sum] = as_it_is,
) -> Tree:
    """What is chosen, or `order(otherwise)`, on a CPU; `otherwise` on other platforms."""
    window = problem.window
    wide = a.dtype in (jnp.float32, jnp.float64)
    empty = not window.size or 0 in (*window.size, *window.outputs)
    if not wide or empty or not _evaluable(a, b):
        return otherwise(a, b)
    if max(window.strides) > 1 and max(window.input_dilation) > 1:
        return otherwise(a, b)
    chosen = choose(problem)
    # As one step: or else what a layer's two gradients need meanwhile would be in memory together.
    # And a result is the same to XLA, however it was worked out: what reads it is compiled once.
    # Not so the depthwise, whose padding is one loop with what made the images.
    if chosen and not _is_depthwise(problem, NARROW):
        chosen = partial(once, chosen)
    on_cpu = chosen or order(otherwise)
    return lax.platform_dependent(a, b, cpu=on_cpu, default=otherwise)


def _late(evaluate: Sum) -> Sum:
    """With a kernel that is not turned before the cotangent is known."""
    return lambda dy, kernel: evaluate(dy, after(kernel, dy))


def _evaluable(*arrays: Array) -> bool:
    """Shapes are known, nothing is empty, and no sharding is asked for."""
    static = all(isinstance(n, int) and n > 0 for x in arrays for n in x.shape)
    return static and not any(
        AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types for x in arrays
    )


def _exact(x: Array, precision: Any) -> bool:
    """Winograd's way, blocks and shifts, for which what is zero in a kernel is multiplied as well,
    are for float32, where no precision is asked for.
    """
    default: Any = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    asked = default if precision is None else precision
    return x.dtype != jnp.float32 or asked not in (None, "default", lax.Precision.DEFAULT)
