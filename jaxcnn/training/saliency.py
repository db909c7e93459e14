"""What a model looked at: the gradient of a class's logit with respect to the picture.

    g = ∂ logits[c] / ∂ x,  c the class that x is taken for;   map = max over channels of |g|

A pixel is bright where a small change of it would change the logit most. The gradient is the
backward pass of the model with the cotangent 1 for the class and 0 for the others, by the rules of
`jaxcnn`: those that give the gradients of the parameters in training.

Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks: visualising image
classification models and saliency maps", 2014.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

import jaxcnn
from jaxcnn.training.step import Tree
from jaxcnn.training.trained import Trained

Apply = Callable[..., tuple[Array, Tree]]


def saliency(trained: Trained, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of the classes, and how much each pixel moves the likeliest one's logit.

    Args:
        trained: from `trained.load`.
        images: `(N, height, width, channels)`, floats from 0 to 1.

    Returns:
        The probabilities, `(N, classes)`, and the maps, `(N, height, width)`: at each pixel the
        largest `|∂logit/∂x|` of its channels, per unit of `x`, which is from black to white. Both
        float32.
    """
    return jax.tree.map(
        np.asarray,
        _saliency(
            trained.params, trained.state, images, apply=trained.model.apply, dtype=trained.dtype
        ),
    )


@partial(jax.jit, static_argnames=("apply", "dtype"))
def _saliency(
    params: Tree, state: Tree, images: Array, *, apply: Apply, dtype: DTypeLike
) -> tuple[Array, Array]:
    scores = partial(logits, params, state, apply=apply, dtype=dtype)
    found, backward = jax.vjp(scores, images)
    (gradient,) = backward(jax.nn.one_hot(found.argmax(-1), found.shape[-1], dtype=found.dtype))
    return jaxcnn.softmax(found), abs(gradient).max(-1)


def logits(params: Tree, state: Tree, images: Array, *, apply: Apply, dtype: DTypeLike) -> Array:
    """The logits of images `(N, height, width, channels)`, worked out in `dtype`, as float32."""
    params = jax.tree.map(partial(jnp.asarray, dtype=dtype), params)
    found, _ = apply(params, state, images.astype(dtype), ops=jaxcnn)
    return found.astype(jnp.float32)
