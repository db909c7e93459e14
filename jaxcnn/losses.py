"""Cross entropies of logits.

Shapes: z (logits) and y (labels) are (N, M), with any number of batch axes in place of N; L is a
loss each, and dL' the cotangent of L that comes from behind (1/N under a mean), called `dloss` in
the code. Labels are differentiable where they are floating.

With p = sigmoid(z) or p = softmax(z) inserted in the cross entropies of probabilities, what is
infinite there cancels. Each dz and dy is times dL':

    sigmoid:  L = -y log sigmoid(z) - (1 - y) log sigmoid(-z)                                  (1)
              dz = (1 - y) sigmoid(z) - y sigmoid(-z)            dy = -z                       (1')

which is the famous p - y, written so that neither term cancels; log sigmoid(z) = -softplus(-z).

    softmax:  L = -sum_c y_c log p_c,  log p_c = z_c - log sum_k exp(z_k)                      (2)
              L' = -sum_c y_c (z'_c - sum_k p_k z'_k) - sum_c y'_c log p_c
              dz_k = p_k sum_c y_c - y_k                         dy_c = -log p_c               (2')

the famous p - y again, for labels that sum to 1. With an integer label l, y_c = [c = l]:

    integer:  L = log sum_k exp(z_k) - z_l                       dz_k = p_k - [k = l]          (3)

Residuals: (1) z and y; (2) log p and y; (3) z, the sum and l, where autodiff keeps the
exponentials, too.

Source: the notes this project grew from; Goodfellow, Bengio and Courville, "Deep Learning", 2016,
chapter 6.2.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn import _check, _cotangent
from jaxcnn.logits import log_softmax_fwd, masked

Axis = int | tuple[int, ...] | None


def sigmoid_binary_cross_entropy(logits: Array, labels: Array) -> Array:
    """Elementwise cross entropy of logits: `optax.sigmoid_binary_cross_entropy`, gradient by hand.

    `loss = -y log sigmoid(z) - (1 - y) log sigmoid(-z)`

    Args:
        logits: z, of any shape and floating dtype.
        labels: y, 0 or 1 or between, of a shape that broadcasts with them; any real dtype.

    Returns:
        The loss of each, in the dtype of `logits`; finite for all finite logits.

    Raises:
        TypeError: `logits` are not floating.
        ValueError: the shapes do not broadcast.

    Gradient (`sigmoid_binary_cross_entropy_bwd`): `dz = (sigmoid(z) - y) dloss` and
    `dy = -z dloss`; derived at the top of this module.

    >>> sigmoid_binary_cross_entropy(jnp.array([0.0, -1e4]), jnp.array([1.0, 1.0]))
    Array([6.931472e-01, 1.000000e+04], dtype=float32)
    """
    labels = _check.labels("sigmoid_binary_cross_entropy", labels, logits=logits)
    return _jitted_sigmoid_binary_cross_entropy(logits, labels)


def softmax_cross_entropy(
    logits: Array, labels: Array, axis: Axis = -1, where: Array | None = None
) -> Array:
    """Cross entropy of logits: `optax.softmax_cross_entropy` with a hand-derived gradient.

    `loss = -sum_c y_c log softmax(z)_c`

    Args:
        logits: z, of any shape and floating dtype.
        labels: y, one-hot or any weights, of a shape that broadcasts with them; any real dtype.
        axis: the axis, or axes, of the classes; None is all of them.
        where: boolean, the elements that take part: of a shape that broadcasts with the logits, or
            without `axis`.

    Returns:
        The logits' shape without `axis`, in their dtype; finite for all finite logits.

    Raises:
        TypeError: `logits` are not floating, or `where` not boolean.
        ValueError: the shapes do not broadcast.

    Gradient (`softmax_cross_entropy_bwd`): `dz_k = (softmax(z)_k sum_c y_c - y_k) dloss` and
    `dy_c = -log softmax(z)_c dloss`; derived at the top of this module.

    >>> z, y = jnp.array([[0.23, 0.89, 0.45, 0.12]]), jnp.array([[0.0, 1.0, 0.0, 0.0]])
    >>> dz = jax.grad(lambda z: softmax_cross_entropy(z, y).sum())(z)  # softmax(z) - y
    >>> [f"{dz_k:.3f}" for dz_k in dz[0]]
    ['0.197', '-0.619', '0.245', '0.176']
    """
    labels = _check.labels("softmax_cross_entropy", labels, logits=logits)
    _check.boolean("softmax_cross_entropy", where=where)
    axes = _axes("softmax_cross_entropy", axis, logits)
    return _jitted_softmax_cross_entropy(logits, labels, _expanded(where, axes, logits), axes)


def safe_softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross entropy in which a label of 0 counts nothing: `optax.safe_softmax_cross_entropy`.

    `loss = -sum of y_c log softmax(z)_c over the c with y_c != 0`

    Arguments, result, errors and gradient are those of `softmax_cross_entropy` over the last axis.
    They differ where a logit is -inf and its label 0: there the one has 0 times -inf, which is NaN.

    >>> safe_softmax_cross_entropy(jnp.array([0.0, -jnp.inf]), jnp.array([1.0, 0.0]))
    Array(-0., dtype=float32)
    """
    labels = _check.labels("safe_softmax_cross_entropy", labels, logits=logits)
    _axes("safe_softmax_cross_entropy", -1, logits)
    return _jitted_safe_softmax_cross_entropy(logits, labels)


def softmax_cross_entropy_with_integer_labels(
    logits: Array, labels: Array, axis: int | tuple[int, ...] = -1, where: Array | None = None
) -> Array:
    """Cross entropy of logits with integer labels: optax's function, gradient derived by hand.

    `loss = log sum_k exp(z_k) - z_label`

    Args:
        logits: z, of any shape and floating dtype.
        labels: integers, the logits' shape without `axis`: the index of the right class. Of several
            axes, the flat index into them.
        axis: the axis, or axes, of the classes.
        where: boolean, the classes that take part: of a shape that broadcasts with the logits, or
            without `axis`.

    Returns:
        The logits' shape without `axis`, in their dtype; finite for all finite logits. 0 where no
        class takes part. A label counts from the end where it is negative; one that is out of range
        gives NaN, and the gradient of `log sum_k exp(z_k)` alone (both as in optax).

    Raises:
        TypeError: `logits` are not floating, `labels` not integer, or `where` not boolean.
        ValueError: the shape of `labels` does not fit, or `axis` is None.

    Gradient (`softmax_cross_entropy_with_integer_labels_bwd`):
    `dz_k = (softmax(z)_k - [k = label]) dloss`; derived at the top of this module.

    >>> z = jnp.array([[0.23, 0.89, 0.45, 0.12]])
    >>> softmax_cross_entropy_with_integer_labels(z, jnp.array([1]))
    Array([0.9646621], dtype=float32)
    """
    function = "softmax_cross_entropy_with_integer_labels"
    _check.floating(function, logits=logits)
    _check.integer(function, labels=labels)
    _check.boolean(function, where=where)
    if axis is None:
        raise ValueError(f"{function}: `axis` must be an integer or a tuple of them, got None")
    axes = _axes(function, axis, logits)
    batch = tuple(i for i in range(-logits.ndim, 0) if i not in axes)
    if labels.shape != (expected := tuple(logits.shape[i] for i in batch)):
        raise ValueError(
            f"{function}: `labels` must have shape {expected}, that of `logits` {logits.shape} "
            f"without axis {axis}, got {labels.shape}"
        )

    classes = math.prod(logits.shape[i] for i in axes)

    def classes_last(x: Array) -> Array:
        return x.transpose(*batch, *axes).reshape(*expected, classes)

    where = _expanded(where, axes, logits)
    if where is not None:
        where = classes_last(jnp.broadcast_to(where, logits.shape))
    return _jitted_integer_cross_entropy(classes_last(logits), labels, where)


# The rules ---------------------------------------------------------------------------------------


@jax.custom_vjp
def _sigmoid_binary_cross_entropy(z: Array, labels: Array) -> Array:
    return sigmoid_binary_cross_entropy_fwd(z, labels)[0]


def sigmoid_binary_cross_entropy_fwd(z: Array, labels: Array) -> tuple[Array, tuple[Array, Array]]:
    """`loss` by (1), and the residuals `(z, labels)`."""
    y = labels.astype(z.dtype)
    return y * jnp.logaddexp(-z, 0) + (1 - y) * jnp.logaddexp(z, 0), (z, labels)


def sigmoid_binary_cross_entropy_bwd(
    residuals: tuple[Array, Array], dloss: Array
) -> tuple[Array | None, Array | None]:
    """`(dz, dlabels)` by (1'), from the residuals and the loss's cotangent."""
    z, labels = residuals
    y = labels.astype(z.dtype)
    dz = ((1 - y) * jax.nn.sigmoid(z) - y * jax.nn.sigmoid(-z)) * dloss
    return _cotangent.match(dz, z), _cotangent.match(-z * dloss, labels)


_sigmoid_binary_cross_entropy.defvjp(
    sigmoid_binary_cross_entropy_fwd, sigmoid_binary_cross_entropy_bwd
)
_jitted_sigmoid_binary_cross_entropy = jax.jit(_sigmoid_binary_cross_entropy)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _softmax_cross_entropy(
    z: Array, labels: Array, where: Array | None, axes: tuple[int, ...]
) -> Array:
    return softmax_cross_entropy_fwd(z, labels, where, axes)[0]


SoftmaxResiduals = tuple[Array, Array, Array | None]


def softmax_cross_entropy_fwd(
    z: Array, labels: Array, where: Array | None, axes: tuple[int, ...]
) -> tuple[Array, SoftmaxResiduals]:
    """`loss` by (2), and the residuals `(log p, labels, where)`. The axes count from the end."""
    log_p, _ = log_softmax_fwd(z, where, axes)
    return _weighted_sum(log_p, labels, where, axes), (log_p, labels, where)


def _weighted_sum(log_p: Array, labels: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    dtype = jnp.promote_types(log_p.dtype, labels.dtype)
    return -(labels.astype(dtype) * log_p.astype(dtype)).sum(axes, where=where)


def softmax_cross_entropy_bwd(
    axes: tuple[int, ...], residuals: SoftmaxResiduals, dloss: Array
) -> tuple[Array | None, Array | None, None]:
    """`(dz, dlabels, None)` by (2'), from the residuals and the loss's cotangent."""
    log_p, labels, where = residuals
    shape = jnp.broadcast_shapes(log_p.shape, labels.shape)
    y = masked(jnp.broadcast_to(labels, shape).astype(dloss.dtype), where, 0)
    p = jnp.exp(log_p).astype(dloss.dtype)
    dloss = jnp.expand_dims(dloss, axes)
    dz = (p * y.sum(axes, keepdims=True) - y) * dloss
    dlabels = masked(-log_p, where, 0).astype(dloss.dtype) * dloss
    return _cotangent.match(dz, log_p), _cotangent.match(dlabels, labels), None


_softmax_cross_entropy.defvjp(softmax_cross_entropy_fwd, softmax_cross_entropy_bwd)
_jitted_softmax_cross_entropy = jax.jit(_softmax_cross_entropy, static_argnums=3)


@jax.custom_vjp
def _safe_softmax_cross_entropy(z: Array, labels: Array) -> Array:
    return safe_softmax_cross_entropy_fwd(z, labels)[0]


def safe_softmax_cross_entropy_fwd(z: Array, labels: Array) -> tuple[Array, SoftmaxResiduals]:
    """`loss` by (2), where a label of 0 hides an infinity; the residuals `(log p, labels, None)`.

    Nothing else is hidden: the loss is linear in a label of 0 as well, by `-log p`.
    """
    log_p, _ = log_softmax_fwd(z, None, -1)
    shape = jnp.broadcast_shapes(z.shape, labels.shape)
    finite = masked(jnp.broadcast_to(log_p, shape), (labels != 0) | jnp.isfinite(log_p), 0)
    return _weighted_sum(finite, labels, None, (-1,)), (log_p, labels, None)


def safe_softmax_cross_entropy_bwd(
    residuals: SoftmaxResiduals, dloss: Array
) -> tuple[Array | None, Array | None]:
    """`(dz, dlabels)` by (2'), from the residuals and the loss's cotangent."""
    return softmax_cross_entropy_bwd((-1,), residuals, dloss)[:2]


_safe_softmax_cross_entropy.defvjp(safe_softmax_cross_entropy_fwd, safe_softmax_cross_entropy_bwd)
_jitted_safe_softmax_cross_entropy = jax.jit(_safe_softmax_cross_entropy)


@jax.custom_vjp
def _integer_cross_entropy(z: Array, labels: Array, where: Array | None) -> Array:
    return softmax_cross_entropy_with_integer_labels_fwd(z, labels, where)[0]


IntegerResiduals = tuple[Array, Array, Array, Array, Array | None]


def softmax_cross_entropy_with_integer_labels_fwd(
    z: Array, labels: Array, where: Array | None
) -> tuple[Array, IntegerResiduals]:
    """`loss` by (3), classes on the last axis; residuals `(z, largest z, sum, labels, where)`.

    The sum is of `exp(z_k - largest)`, so that nothing overflows. Its logarithm is not added to the
    largest before the difference: at a z of 1e4 that would round away four of p's digits.
    """
    chosen = masked(z, where, -jnp.inf)
    largest = lax.stop_gradient(chosen.max(-1, keepdims=True, initial=-jnp.inf))
    largest = masked(largest, jnp.isfinite(largest), 0)
    total = jnp.exp(chosen - largest).sum(-1, keepdims=True)
    z_label = jnp.take_along_axis(z, labels[..., None], -1)
    loss = (jnp.log(total) + (largest - z_label)).squeeze(-1)
    if where is not None:
        loss = masked(loss, where.any(-1), 0)
    return loss, (z, largest, total, labels, where)


def softmax_cross_entropy_with_integer_labels_bwd(
    residuals: IntegerResiduals, dloss: Array
) -> tuple[Array | None, None, None]:
    """`(dz, None, None)` by (3), from the residuals and the loss's cotangent."""
    z, largest, total, labels, where = residuals
    p = masked(jnp.exp(z - largest) / total, where, 0)
    label = labels.astype(jnp.int32)[..., None]
    label = jnp.where(label < 0, label + z.shape[-1], label)
    dz = p - (jnp.arange(z.shape[-1], dtype=jnp.int32) == label).astype(z.dtype)
    if where is not None:
        dz = masked(dz, where.any(-1, keepdims=True), 0)
    return _cotangent.match(dz * dloss[..., None], z), None, None


_integer_cross_entropy.defvjp(
    softmax_cross_entropy_with_integer_labels_fwd, softmax_cross_entropy_with_integer_labels_bwd
)
_jitted_integer_cross_entropy = jax.jit(_integer_cross_entropy)


# Arguments ---------------------------------------------------------------------------------------


def _axes(function: str, axis: Axis, logits: Array) -> tuple[int, ...]:
    """The axes, counted from the end: so they hold for what the logits are broadcast to, too."""
    given = range(logits.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = tuple(entry - logits.ndim if entry >= 0 else entry for entry in given)
    if any(not -logits.ndim <= entry < 0 for entry in axes) or len(set(axes)) < len(axes):
        raise ValueError(f"{function}: `axis` {axis} does not name axes of `logits` {logits.shape}")
    return axes


def _expanded(where: Array | None, axes: tuple[int, ...], logits: Array) -> Array | None:
    """`where` with the axes of the classes, in case it came without."""
    if where is None or where.ndim == logits.ndim:
        return where
    return jnp.expand_dims(where, axes)
