"""Augmentation: pictures changed at random where that changes nothing of what they show.

Pure functions of a key, jitted into the step. On several devices, over which a batch is divided,
each draws for the whole batch and takes its share: what becomes of a picture does not depend on the
device that has it.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.normalization import AxisName


def random_crop(key: Array, images: Array, padding: int, *, axis_name: AxisName = None) -> Array:
    """Each picture moved by up to `padding` pixels along both axes; zeros come in.

    It is the crop, of its own size and at a random place, of the picture framed by zeros.

    Args:
        key: of `jax.random`.
        images: `(N, H, W, C)`, of any dtype.
        padding: the width of the frame, in pixels.
        axis_name: of the mapped axes over which the batch is divided.

    Returns:
        An array like `images`.

    >>> image = jnp.arange(1, 5).reshape(1, 2, 2, 1)
    >>> random_crop(jax.random.key(2), image, 1)[0, ..., 0]
    Array([[0, 1],
           [0, 3]], dtype=int32)
    """
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    framed = jnp.pad(images, sides)
    corners = _bits(key, (len(images), 2), axis_name) % (2 * padding + 1)

    def crop(image: Array, corner: Array) -> Array:
        return lax.dynamic_slice(image, (*corner, corner.dtype.type(0)), images.shape[1:])

    return jax.vmap(crop)(framed, corners.astype(jnp.int32))


def random_flip(key: Array, images: Array, *, axis_name: AxisName = None) -> Array:
    """Each picture as it is or, as often, with left and right exchanged.

    Args:
        key: of `jax.random`.
        images: `(N, H, W, C)`, of any dtype.
        axis_name: of the mapped axes over which the batch is divided.

    Returns:
        An array like `images`.

    >>> image = jnp.arange(1, 5).reshape(1, 2, 2, 1)
    >>> random_flip(jax.random.key(0), image)[0, ..., 0]
    Array([[2, 1],
           [4, 3]], dtype=int32)
    """
    flipped = _bits(key, (len(images), 1, 1, 1), axis_name) % 2 == 1
    return jnp.where(flipped, images[:, :, ::-1], images)


def _bits(key: Array, shape: tuple[int, ...], axis_name: AxisName) -> Array:
    """Random numbers of 32 bits, a row a picture: this device's of those for the whole batch."""
    if axis_name is None:
        return jax.random.bits(key, shape)
    rows = shape[0]
    drawn = jax.random.bits(key, (rows * lax.axis_size(axis_name), *shape[1:]))
    return lax.dynamic_slice_in_dim(drawn, rows * lax.axis_index(axis_name), rows)
