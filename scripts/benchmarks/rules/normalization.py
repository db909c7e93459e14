"""Normalization by hand, and bugs in it."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from benchmarks.rules.case import (
    FORGOTTEN,
    MEAN,
    NOT_FINITE,
    SIGN,
    TRANSPOSED,
    ZERO,
    Backward,
    Case,
    changed,
    normal,
    rule,
)

EPSILON = 1e-5
BATCH = (0, 1, 2)  # the axes that batch norm's moments are means over


def moments(x: Array, axes: Any = BATCH, epsilon: float = EPSILON) -> tuple[Array, Array]:
    """n = (x - mean) r, and r = 1 / sqrt(variance + epsilon)."""
    centred = x - x.mean(axes, keepdims=True)
    r = 1 / jnp.sqrt((centred * centred).mean(axes, keepdims=True) + epsilon)
    return centred * r, r


def norm(x: Array, scale: Array, bias: Array, axes: Any = BATCH, epsilon: float = EPSILON) -> Array:
    """y = n scale + bias."""
    return moments(x, axes, epsilon)[0] * scale + bias


def norm_backward(
    args: tuple,
    y: Array,
    dy: Array,
    axes: Any = BATCH,
    epsilon: float = EPSILON,
    of_mean: float = 1,
    of_variance: float = 1,
) -> tuple:
    """dx = r (dn - E[dn] - n E[n dn]), dscale = sum of n dy, dbias = sum of dy; dn = scale dy."""
    x, scale, _ = args
    n, r = moments(x, axes, epsilon)
    dn = scale * dy
    mean = of_mean * dn.mean(axes, keepdims=True)
    slope = of_variance * (n * dn).mean(axes, keepdims=True)
    rest = tuple(range(x.ndim - 1))
    return r * (dn - mean - n * slope), (n * dy).sum(rest), dy.sum(rest)


def scale_forgotten(args: tuple, y: Array, dy: Array) -> tuple:
    x, scale, bias = args
    dx = norm_backward((x, jnp.ones_like(scale), bias), y, dy)[0]
    return dx, *norm_backward(args, y, dy)[1:]


def by_n_minus_1(args: tuple, y: Array, dy: Array) -> tuple:
    """The means of the backward pass are of one element less."""
    count = args[0].size // args[0].shape[-1]
    less = count / (count - 1)
    return norm_backward(args, y, dy, of_mean=less, of_variance=less)


def normalised_from_y(args: tuple, y: Array, dy: Array) -> tuple:
    """n = (y - bias) / scale keeps less, and is 0 / 0 where the scale is 0."""
    x, scale, bias = args
    n, r = (y - bias) / scale, moments(x)[1]
    dn = scale * dy
    dx = r * (dn - dn.mean(BATCH) - n * (n * dn).mean(BATCH))
    return dx, (n * dy).sum(BATCH), dy.sum(BATCH)


def with_moments(x: Array) -> tuple[Array, Array, Array]:
    """Normalised x, and its mean and variance, which a user may also differentiate."""
    return moments(x)[0], x.mean(BATCH), x.var(BATCH)


def with_moments_backward(args: tuple, y: Any, dy: Any, kept: float = 1) -> tuple:
    """dx = r (dn - E[dn] - n E[n dn]) + (dmean + 2 (x - mean) dvariance) / m."""
    (x,) = args
    dn, dmean, dvariance = dy
    n, r = moments(x)
    dx = r * (dn - dn.mean(BATCH) - n * (n * dn).mean(BATCH))
    count = x.size // x.shape[-1]
    return (dx + kept * (dmean + 2 * (x - x.mean(BATCH)) * dvariance) / count,)


def rms_norm(x: Array) -> Array:
    """y = x r, r = 1 / sqrt(mean of x^2 + epsilon)."""
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)


def rms_norm_backward(args: tuple, y: Array, dy: Array, power: int = 3) -> tuple:
    """dx = r dy - r^3 x E[x dy]."""
    (x,) = args
    r = 1 / jnp.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
    return (r * dy - r**power * x * (x * dy).mean(-1, keepdims=True),)


def bug(name: str, backward: Backward, *says: str, **options: Any) -> Case:
    f = rule(partial(norm, **options), backward)
    return Case(name, f, normal((2, 3, 3, 3), (3,), (3,)), says)


def of_dx(**wrong: Any) -> Backward:
    return partial(norm_backward, **wrong)


BUGS = [
    bug("batch norm, dx: mean held constant", of_dx(of_mean=0), *FORGOTTEN),
    bug("batch norm, dx: variance held constant", of_dx(of_variance=0), *FORGOTTEN),
    bug(
        "batch norm, dx: both held constant",
        of_dx(of_mean=0, of_variance=0),
        *FORGOTTEN,
    ),
    bug("batch norm, dx: mean counted twice", of_dx(of_mean=2), *FORGOTTEN),
    bug(
        "batch norm, dx: scale forgotten",
        scale_forgotten,
        "scale` is missing",
        "scale is missing",
        "factor that",
    ),
    bug("batch norm, dx: n - 1 for n", by_n_minus_1, *FORGOTTEN),
    bug(
        "batch norm, dx: epsilon forgotten",
        norm_backward,
        *FORGOTTEN,
        "factor that",
        epsilon=0.5,
    ),
    bug(
        "batch norm, dscale: of x for n",
        lambda args, y, dy: (
            norm_backward(args, y, dy)[0],
            (args[0] * dy).sum(BATCH),
            dy.sum(BATCH),
        ),
        *FORGOTTEN,
        "residual",
        "normalis",
        "normaliz",
    ),
    bug("batch norm, dscale: mean", changed(norm_backward, 1, lambda d: d / 18), *MEAN),
    bug("batch norm, dbias: sign", changed(norm_backward, 2, jnp.negative), *SIGN),
    bug(
        "batch norm, dbias: over other axes",
        lambda args, y, dy: (*norm_backward(args, y, dy)[:2], dy.sum((0, 1, 3))),
        *TRANSPOSED,
        "axes",
        "shape",
    ),
    bug("batch norm: 0 / 0 at scale 0", normalised_from_y, *NOT_FINITE),
    bug(
        "layer norm, dx: means over the batch",
        lambda args, y, dy: (
            norm_backward(args, y, dy)[0],
            *norm_backward(args, y, dy, axes=-1)[1:],
        ),
        "batch",
        "axes",
        *FORGOTTEN,
        axes=-1,
    ),
    bug(
        "instance norm, dx: 0 / 0 at constant channels",
        partial(norm_backward, axes=(1, 2), epsilon=0),
        *NOT_FINITE,
        axes=(1, 2),
    ),
    Case(
        "batch norm with moments: theirs are dropped",
        rule(with_moments, partial(with_moments_backward, kept=0)),
        normal((2, 3, 3, 3)),
        ZERO,
    ),
    Case(
        "rms norm: r^2 for r^3",
        rule(rms_norm, partial(rms_norm_backward, power=2)),
        normal((4, 3), scale=3),
        FORGOTTEN,
    ),
]
