"""A batch in parts that fit the cache.

What is worked out for one part (patches, transforms) is consumed before it leaves the cache, and no
more than one part's is in memory at a time.

On one device a part is images next to each other; where the parts do not divide the batch, the last
begins within the one before it.

On several a part is every n-th image: image j of each of `images` runs. A batch that is sharded
over the devices is cut along the runs' axis, so that each device holds a share of every part, and
the loop moves no image between them. Where the parts do not divide the batch, it is filled up with
zeros, which copies it.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.scheduling_groups import xla_metadata_call
from jax.typing import DTypeLike

from jaxcnn._order import after, varying
from jaxcnn._window import Sizes

Tree = Any  # an array, or several
Finish = Callable[[Array], Tree]  # what is still done to a part of a result
CACHE = 2**18  # elements: 1 MiB in float32


def images_per_part(batch: int, wanted: int, ways: int = 1) -> int:
    """How many images a part has: about `wanted`, a number that divides the batch if one is near;
    or else such that the parts are the fewest, and as small as they can be then.

    Always a multiple of the number of devices, over which a batch may be sharded, or on one device
    of `ways`, in which a part is to be divided; if the batch is.

    >>> images_per_part(128, 6), images_per_part(100, 6), images_per_part(127, 6)
    (4, 5, 6)
    >>> images_per_part(67, 64), images_per_part(100, 6, ways=2)
    (34, 4)
    """
    devices = jax.device_count()
    least = devices if devices > 1 else ways
    if batch % least:
        least = 1
    most = max(wanted // least, 1) * least
    if batch <= most:
        return batch
    best = max(n for n in range(least, most + 1, least) if batch % n == 0)
    if 2 * best >= max(wanted, most):
        return best
    parts = -(-batch // most)
    return -(-batch // (parts * least)) * least


def images_in_cache(x: Array) -> int:
    """So many images of `x` that a padded copy of them fits the cache."""
    return images_per_part(len(x), max(CACHE // math.prod(x.shape[1:]), 1))


def as_it_is(x: Any) -> Any:
    """`x`, which is finished."""
    return x


def once(f: Callable[..., Tree], *arrays: Tree) -> Tree:
    """`f(*arrays)`, written to memory, as one step.

    What is cheap per element, as a few comparisons, XLA works out again in every loop that reads
    it, and keeps what it was worked out from. It does not look into a call that is not inlined.
    Nor does it begin one before the arrays are known, or run two of them by turns: what one needs
    meanwhile is in memory no longer than that one. (Reshape within `f` where a shape may have ones:
    XLA copies an array to have them in the order that a call takes them in.)
    """
    return xla_metadata_call(f, inlineable="false")(*arrays)


def _of_image(x: Array) -> Sizes:
    return x.shape[1:]


def map_parts(f: Callable[..., Tree], images: int, *arrays: Array) -> Tree:
    """`f(*arrays)`, by parts of so many images; all arrays and results have the batch first."""
    batch = arrays[0].shape[0]
    parts, at = _cut(images, arrays)
    if parts == 1:
        return f(*arrays)
    adjacent = _are_adjacent()
    axes = (batch,) if adjacent else (images, parts)

    def zeros(part: jax.ShapeDtypeStruct) -> Array:
        # To be written over. Of a zero that is known no sooner than the arrays: or else all loops
        # would share them, and have them copied. Flat, and as a step: what fills one of that size
        # is compiled once.
        shape = (*axes, *part.shape[1:])
        zero = _zero(arrays, part.dtype)
        filled = once(lambda zero: jnp.broadcast_to(zero, math.prod(shape)), zero)
        return _varying(part, filled.reshape(shape))

    whole = jax.tree.map(zeros, jax.eval_shape(f, *at(0)))

    def body(number: Array, whole: Tree) -> Tree:
        def write(whole: Array, part: Array) -> Array:
            if adjacent:
                first = _first(number, batch, images)
                return lax.dynamic_update_slice_in_dim(
                    whole, part, first, 0, allow_negative_indices=False
                )
            return lax.dynamic_update_index_in_dim(
                whole, part, number, 1, allow_negative_indices=False
            )

        return jax.tree.map(write, whole, f(*at(number)))

    whole = lax.fori_loop(0, parts, body, whole)
    return jax.tree.map(lambda x: lax.collapse(x, 0, len(axes))[:batch], whole)


def sum_parts(
    f: Callable[..., Tree],
    images: int,
    *arrays: Array,
    at_once: int = 1,
    of_image: Callable[[Array], Sizes] = _of_image,
) -> Tree:
    """`f(*arrays)`, which sums over the batch, as the sum over parts of so many images.

    `at_once` parts are one round of the loop: XLA then adds them in one pass over the sums. `f` is
    given images in the shape `of_image(array)`.
    """
    parts, at = _cut(images, arrays, of_image, repeat=False)
    if parts == 1:
        return f(*(x.reshape(len(x), *of_image(x)) for x in arrays))
    zeros = jax.tree.map(
        lambda part: _varying(part, jnp.broadcast_to(_zero(arrays, part.dtype), part.shape)),
        jax.eval_shape(f, *at(0)),
    )

    def body(number: Array, total: Tree) -> Tree:
        return jax.tree.map(jnp.add, total, f(*at(number)))

    return lax.fori_loop(0, parts, body, zeros, unroll=min(at_once, parts))


def side_by_side(
    f: Callable[..., tuple[Array, list[Array]]], ways: int, *arrays: Array
) -> tuple[list[Array], list[Array]]:
    """`f` of the arrays' images in so many runs of equal length, each on a core of its own.

    `f` gives a result, and what it was worked out from. The results, the first list, have to be
    used `after` all of the second: XLA gives the memory of what was read for the last time to what
    comes next in its order, and what is written there waits. So the second run would begin when the
    first is done, though another core is free.

    It is one run on several devices, which share a part, and where the runs would not be equal.
    """
    images = len(arrays[0])
    if ways == 1 or not _are_adjacent() or images % ways:
        result, _ = f(*arrays)
        return [result], []
    some = images // ways
    # As a step: or else what reads each run, from a number of its own, is compiled once more.
    firsts = once(lambda: [jnp.asarray(run * some, jnp.int32) for run in range(ways)])

    def run(first: Array) -> list[Array]:
        return [
            lax.dynamic_slice_in_dim(x, first, some, allow_negative_indices=False) for x in arrays
        ]

    results, kept = zip(*(f(*run(first)) for first in firsts), strict=True)
    return list(results), list(itertools.chain(*kept))


def _are_adjacent() -> bool:
    """Whether the images of a part are next to each other."""
    return jax.device_count() == 1


def _zero(arrays: tuple[Array, ...], dtype: DTypeLike) -> Array:
    """One that is not known before the arrays."""
    return functools.reduce(after, arrays, jnp.zeros((), dtype))


def _first(number: int | Array, batch: int, images: int) -> int | Array:
    """The first image of a part of adjacent ones; the last may begin within the one before it."""
    first = number * images
    return jnp.minimum(first, batch - images) if batch % images else first


def _cut(
    images: int,
    arrays: tuple[Array, ...],
    of_image: Callable[[Array], Sizes] = _of_image,
    repeat: bool = True,
) -> tuple[int, Callable[[int | Array], list[Array]]]:
    """The number of parts, and what gives one of them.

    The last may be filled up with zeros; or, of adjacent images, `repeat` those that it has in
    common with the one before it, or have zeros in their place.
    """
    batch = arrays[0].shape[0]
    parts = -(-batch // images)

    def stretch(number: int | Array) -> list[Array]:
        first = _first(number, batch, images)
        some = [
            lax.dynamic_slice_in_dim(x, first, images, allow_negative_indices=False) for x in arrays
        ]
        if not repeat and batch % images:
            new = jnp.arange(images) >= number * images - first
            some = [_masked(x, new) for x in some]
        return [x.reshape(images, *of_image(x)) for x in some]

    if _are_adjacent():
        return parts, stretch
    more = (0, images * parts - batch, 0)
    whole = [
        lax.pad(x, jnp.zeros((), x.dtype), [more, *[(0, 0, 0)] * (x.ndim - 1)]) for x in arrays
    ]
    # Reshaped at each reading: or else XLA would write what is cheap once more in that shape. No
    # index is negative: that it is said, as in `map_parts`, spares XLA to compare and correct it.
    return parts, lambda number: [
        lax.dynamic_index_in_dim(
            x.reshape(images, parts, *of_image(x)),
            number,
            1,
            keepdims=False,
            allow_negative_indices=False,
        )
        for x in whole
    ]


def _masked(x: Array, keep: Array) -> Array:
    """The images of `x` to keep, and zeros in the others' place."""
    return jnp.where(jnp.expand_dims(keep, range(1, x.ndim)), x, 0)


def _varying(result: jax.ShapeDtypeStruct, x: Array) -> Array:
    """`x`, varying over as many devices as results do, as a carry has to.

    Of what else than the batch a result is made (a kernel, a bias) may vary where that does not.
    """
    more = tuple(varying(result) - varying(x))
    return lax.pcast(x, more, to="varying") if more else x
