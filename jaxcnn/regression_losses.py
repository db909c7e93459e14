"""Losses of a prediction that is a number: squared error and Huber's.

Shape: predictions p, targets y (or None, for zeros) and the losses are all alike; dL' is the
cotangent of the losses, `dloss` in the code. With the error e = p - y, each is a function of e
alone:

    squared error   e^2                                        dL/de = 2 e                     (1)
    l2              e^2 / 2                                    dL/de = e                       (2)
    Huber, delta d  e^2 / 2                      if |e| <= d   dL/de = e
                    d^2 / 2 + d (|e| - d)        else          dL/de = d sign(e)               (3)
                                                               dL/dd = |e| - d in the else

and since e' = p' - y', dp = dL/de dL' and dy = -dp. Both branches of (3) and their derivatives meet
at |e| = d. Huber's dL/de is the error clipped to [-d, d]: its other description.

Residuals: the error, and d. Sources: Huber, "Robust estimation of a location parameter", 1964.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxcnn import _check, _cotangent


def squared_error(predictions: Array, targets: Array | None = None) -> Array:
    """`(predictions - targets)^2`: `optax.squared_error` with a hand-derived gradient.

    Args:
        predictions: of any shape and floating dtype.
        targets: of the same shape; None is zeros.

    Returns:
        The loss of each.

    Raises:
        TypeError: `predictions` are not floating.
        ValueError: the shapes are not the same. (So it is for all functions here.)

    Gradient (`squared_error_bwd`): `dpredictions = 2 (predictions - targets) dloss`, and
    `dtargets` is minus that.

    >>> jax.grad(lambda p: squared_error(p, jnp.array(1.0)))(jnp.array(3.0))
    Array(4., dtype=float32)
    """
    targets = _targets("squared_error", predictions, targets)
    return _jitted_squared_error(predictions, targets)


def l2_loss(predictions: Array, targets: Array | None = None) -> Array:
    """`(predictions - targets)^2 / 2`: `optax.l2_loss` with a hand-derived gradient.

    Arguments, result and errors: as `squared_error`.

    Gradient (`l2_loss_bwd`): `dpredictions = (predictions - targets) dloss`, and `dtargets` is
    minus that.

    >>> jax.grad(lambda p: l2_loss(p, jnp.array(1.0)))(jnp.array(3.0))
    Array(2., dtype=float32)
    """
    targets = _targets("l2_loss", predictions, targets)
    return _jitted_l2_loss(predictions, targets)


def huber_loss(
    predictions: Array, targets: Array | None = None, *, delta: float | Array = 1.0
) -> Array:
    """Squared near zero, linear beyond `delta`: `optax.huber_loss` with a hand-derived gradient.

    Arguments, result and errors: as `squared_error`; `delta` broadcasts with them, and has a
    gradient too.

    Gradient (`huber_loss_bwd`): `dpredictions = clip(predictions - targets, -delta, delta) dloss`,
    `dtargets` is minus that, and `ddelta = sum of max(|predictions - targets| - delta, 0) dloss`.

    >>> jax.grad(lambda p: huber_loss(p, jnp.array(1.0)))(jnp.array(3.0))
    Array(1., dtype=float32)
    """
    targets = _targets("huber_loss", predictions, targets)
    return _jitted_huber_loss(predictions, targets, _check.array("huber_loss", delta=delta))


# The rules ---------------------------------------------------------------------------------------


@jax.custom_vjp
def _squared_error(p: Array, y: Array | None) -> Array:
    return squared_error_fwd(p, y)[0]


Residuals = tuple[Array, Array, Array | None]


def squared_error_fwd(p: Array, y: Array | None) -> tuple[Array, Residuals]:
    """`loss` by (1), and the residuals `(error, p, y)`, the last two for their types."""
    error = p if y is None else p - y
    return error * error, (error, p, y)


def squared_error_bwd(residuals: Residuals, dloss: Array) -> tuple[Array | None, Array | None]:
    """`(dp, dy)` by (1), from the residuals and the loss's cotangent."""
    error, p, y = residuals
    return _both(2 * error * dloss, p, y)


_squared_error.defvjp(squared_error_fwd, squared_error_bwd)
_jitted_squared_error = jax.jit(_squared_error)


@jax.custom_vjp
def _l2_loss(p: Array, y: Array | None) -> Array:
    return l2_loss_fwd(p, y)[0]


def l2_loss_fwd(p: Array, y: Array | None) -> tuple[Array, Residuals]:
    """`loss` by (2), and the residuals `(error, p, y)`, the last two for their types."""
    loss, residuals = squared_error_fwd(p, y)
    return loss / 2, residuals


def l2_loss_bwd(residuals: Residuals, dloss: Array) -> tuple[Array | None, Array | None]:
    """`(dp, dy)` by (2), from the residuals and the loss's cotangent."""
    error, p, y = residuals
    return _both(error * dloss, p, y)


_l2_loss.defvjp(l2_loss_fwd, l2_loss_bwd)
_jitted_l2_loss = jax.jit(_l2_loss)


@jax.custom_vjp
def _huber_loss(p: Array, y: Array | None, delta: Array) -> Array:
    return huber_loss_fwd(p, y, delta)[0]


HuberResiduals = tuple[Array, Array, Array | None, Array]


def huber_loss_fwd(p: Array, y: Array | None, delta: Array) -> tuple[Array, HuberResiduals]:
    """`loss` by (3), and the residuals `(error, p, y, delta)`, two of them for their types."""
    error = p if y is None else p - y
    size = jnp.abs(error)
    loss = jnp.where(size <= delta, error * error / 2, delta * (size - delta / 2))
    return loss, (error, p, y, delta)


def huber_loss_bwd(
    residuals: HuberResiduals, dloss: Array
) -> tuple[Array | None, Array | None, Array | None]:
    """`(dp, dy, ddelta)` by (3), from the residuals and the loss's cotangent."""
    error, p, y, delta = residuals
    size = jnp.abs(error)
    near = size <= delta
    dp, dy = _both(jnp.where(near, error, delta * jnp.sign(error)) * dloss, p, y)
    ddelta = jnp.where(near, jnp.zeros((), dloss.dtype), (size - delta) * dloss)
    return dp, dy, _cotangent.match(ddelta, delta)


_huber_loss.defvjp(huber_loss_fwd, huber_loss_bwd)
_jitted_huber_loss = jax.jit(_huber_loss)


def _both(dp: Array, p: Array, y: Array | None) -> tuple[Array | None, Array | None]:
    """The cotangents of predictions and targets: `e' = p' - y'`."""
    return _cotangent.match(dp, p), None if y is None else _cotangent.match(-dp, y)


def _targets(function: str, predictions: Array, targets: Array | None) -> Array | None:
    _check.floating(function, predictions=predictions)
    if targets is None:
        return None
    targets = _check.array(function, targets=targets)
    if targets.shape != predictions.shape:
        raise ValueError(
            f"{function}: `targets` of shape {targets.shape} must have that of `predictions`, "
            f"{predictions.shape}"
        )
    return targets
