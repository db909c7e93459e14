"""Cross entropies of probabilities, as the notes write them.

Shapes: p (probabilities) and y (labels) are (N, M), with any number of batch axes in place of N; L
is a loss each, and dL' the cotangent of L that comes from behind (1/N under a mean), called `dloss`
in the code. Labels are differentiable where they are floating.

    binary:       L = -(y log p + (1 - y) log(1 - p)),  elementwise                            (1)
                  dp = (1 - y) / (1 - p) - y / p      dy = log(1 - p) - log p                  (2)

    categorical:  L = -sum_c y_c log p_c                                                       (3)
                  dp_c = -y_c / p_c                   dy_c = -log p_c                          (4)

(2) and (4) are each times dL'. Of a probability of 0 the logarithm is -inf and its derivative inf.
One convention for all four formulas: where p, or 1 - p, stands in a logarithm or a denominator, it
is raised to the smallest normal number of its dtype (1.2e-38 in float32), so that both are finite
(a loss of 87.3 at most) and right for all p that are larger. A wrong prediction at p = 0 keeps its
large gradient. Where there are logits, the losses of `losses.py` need no such convention.

Residuals: p and y, which the caller may hold anyway.

Source: the notes this project grew from; Goodfellow, Bengio and Courville, "Deep Learning", 2016,
chapter 6.2.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxcnn import _check, _cotangent


def binary_cross_entropy(probabilities: Array, labels: Array) -> Array:
    """Elementwise cross entropy of probabilities: `-(y log p + (1 - y) log(1 - p))`.

    On logits, `sigmoid_binary_cross_entropy` is more accurate.

    Args:
        probabilities: predictions p, of any shape and floating dtype.
        labels: y, 0 or 1 or between, of a shape that broadcasts with them; any real dtype.

    Returns:
        The loss of each, in the dtype of `probabilities`. Finite: a logarithm's argument is raised
        to the smallest normal number.

    Raises:
        TypeError: `probabilities` are not floating.
        ValueError: the shapes do not broadcast.

    Gradient (`binary_cross_entropy_bwd`): `dp = ((1 - y) / (1 - p) - y / p) dloss` and
    `dy = (log(1 - p) - log p) dloss`; derived at the top of this module.

    >>> binary_cross_entropy(jnp.array([0.5, 0.0]), jnp.array([1.0, 1.0]))
    Array([ 0.6931472, 87.33655  ], dtype=float32)
    """
    labels = _check.labels("binary_cross_entropy", labels, probabilities=probabilities)
    return _jitted_binary_cross_entropy(probabilities, labels)


def categorical_cross_entropy(probabilities: Array, labels: Array) -> Array:
    """Cross entropy of probabilities over the last axis: `-sum_c y_c log p_c`.

    On logits, `softmax_cross_entropy` is more accurate.

    Args:
        probabilities: predictions p, `(*batch, M)`, of floating dtype.
        labels: y, one-hot or a distribution, of a shape that broadcasts with them; any real dtype.

    Returns:
        `(*batch,)`, in the dtype of `probabilities`. Finite: a logarithm's argument is raised to
        the smallest normal number.

    Raises:
        TypeError: `probabilities` are not floating.
        ValueError: the shapes do not broadcast, or are scalars.

    Gradient (`categorical_cross_entropy_bwd`): `dp_c = -y_c / p_c dloss` and
    `dy_c = -log p_c dloss`; derived at the top of this module.

    >>> categorical_cross_entropy(jnp.array([[0.05, 0.7, 0.2, 0.05]]), jnp.array([[0, 1, 0, 0]]))
    Array([0.35667497], dtype=float32)
    """
    labels = _check.labels("categorical_cross_entropy", labels, probabilities=probabilities)
    if jnp.ndim(probabilities) == 0:
        raise ValueError("categorical_cross_entropy: `probabilities` must have an axis of classes")
    return _jitted_categorical_cross_entropy(probabilities, labels)


# The rules ----------------------------------------------------------------------------------------


@jax.custom_vjp
def _binary_cross_entropy(p: Array, labels: Array) -> Array:
    return binary_cross_entropy_fwd(p, labels)[0]


def binary_cross_entropy_fwd(p: Array, labels: Array) -> tuple[Array, tuple[Array, Array]]:
    """`loss` by (1), and the residuals `(p, labels)`."""
    y = labels.astype(p.dtype)
    return -(y * jnp.log(_raised(p)) + (1 - y) * jnp.log(_raised(1 - p))), (p, labels)


def binary_cross_entropy_bwd(
    residuals: tuple[Array, Array], dloss: Array
) -> tuple[Array | None, Array | None]:
    """`(dp, dlabels)` by (2), from the residuals and the loss's cotangent."""
    p, labels = residuals
    y = labels.astype(p.dtype)
    dp = ((1 - y) / _raised(1 - p) - y / _raised(p)) * dloss
    dlabels = (jnp.log(_raised(1 - p)) - jnp.log(_raised(p))) * dloss
    return _cotangent.match(dp, p), _cotangent.match(dlabels, labels)


_binary_cross_entropy.defvjp(binary_cross_entropy_fwd, binary_cross_entropy_bwd)
_jitted_binary_cross_entropy = jax.jit(_binary_cross_entropy)


@jax.custom_vjp
def _categorical_cross_entropy(p: Array, labels: Array) -> Array:
    return categorical_cross_entropy_fwd(p, labels)[0]


def categorical_cross_entropy_fwd(p: Array, labels: Array) -> tuple[Array, tuple[Array, Array]]:
    """`loss` by (3), and the residuals `(p, labels)`."""
    return -(labels.astype(p.dtype) * jnp.log(_raised(p))).sum(-1), (p, labels)


def categorical_cross_entropy_bwd(
    residuals: tuple[Array, Array], dloss: Array
) -> tuple[Array | None, Array | None]:
    """`(dp, dlabels)` by (4), from the residuals and the loss's cotangent."""
    p, labels = residuals
    dloss = dloss[..., None]
    dp = -labels.astype(p.dtype) / _raised(p) * dloss
    dlabels = -jnp.log(_raised(p)) * dloss
    return _cotangent.match(dp, p), _cotangent.match(dlabels, labels)


_categorical_cross_entropy.defvjp(categorical_cross_entropy_fwd, categorical_cross_entropy_bwd)
_jitted_categorical_cross_entropy = jax.jit(_categorical_cross_entropy)


def _raised(p: Array) -> Array:
    """`p`, but the smallest normal number at least: fit for a logarithm or a denominator.

    Its own derivative plays no part: (2) and (4) are those of the logarithms, taken there.
    """
    return jnp.maximum(p, jnp.finfo(p.dtype).tiny)
