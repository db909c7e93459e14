"""Dense layers, softmax and cross entropies by hand, and bugs in them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.rules.case import (
    FORGOTTEN,
    MEAN,
    NOT_FINITE,
    NOT_LINEAR,
    ORDER,
    SHIFTED,
    SIGN,
    TRANSPOSED,
    TWICE,
    ZERO,
    Backward,
    Case,
    changed,
    normal,
    rule,
)


def dense(x: Array, kernel: Array, bias: Array) -> Array:
    """y = x kernel + bias."""
    return x @ kernel + bias


def dense_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """dx = dy kernel^T, dkernel = x^T dy, dbias = sum of dy."""
    x, kernel, _ = args
    return dy @ kernel.T, x.T @ dy, dy.sum(0)


def softmax(x: Array, temperature: float = 1) -> Array:
    """exp(x / t) by its sum over the last axis."""
    return jax.nn.softmax(x / temperature)


def softmax_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """dx = y (dy - sum of dy y)."""
    return (y * (dy - (dy * y).sum(-1, keepdims=True)),)


def log_softmax_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """dx = dy - exp(y) sum of dy."""
    return (dy - jnp.exp(y) * dy.sum(-1, keepdims=True),)


def logsumexp(x: Array) -> Array:
    """log of the sum of exp(x), with the maximum taken out."""
    return jax.nn.logsumexp(x, -1)


def naive_logsumexp_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """softmax(x) dy, by exponentials that overflow."""
    e = jnp.exp(args[0])
    return (e / e.sum(-1, keepdims=True) * dy[..., None],)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """The mean over the batch of -sum of labels log softmax(logits)."""
    return -(labels * jax.nn.log_softmax(logits)).sum(-1).mean()


def cross_entropy_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """dlogits = (softmax sum of labels - labels) dy / n, dlabels = -log softmax dy / n."""
    logits, labels = args
    each = dy / len(logits)
    total = labels.sum(-1, keepdims=True)
    return (softmax(logits) * total - labels) * each, -jax.nn.log_softmax(logits) * each


def smoothed(logits: Array, labels: Array) -> Array:
    """Cross entropy of labels that are moved by 0.4 towards uniform ones."""
    return cross_entropy(logits, 0.6 * labels + 0.4 / labels.shape[-1])


def of_integers(logits: Array, labels: Array) -> Array:
    """The sum over the batch of -log softmax(logits) at the labels, which are integers."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], -1).sum()


def of_integers_backward(args: tuple, y: Array, dy: Array, off: int = 0) -> tuple:
    """softmax(logits) - onehot(labels); the labels have no gradient."""
    logits, labels = args
    hot = jax.nn.one_hot(labels + off, logits.shape[-1], dtype=logits.dtype)
    return (softmax(logits) - hot) * dy, None


def binary(logits: Array, labels: Array) -> Array:
    """-labels log sigmoid(logits) - (1 - labels) log sigmoid(-logits)."""
    return jax.nn.softplus(logits) - labels * logits


def binary_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """dlogits = (sigmoid(logits) - labels) dy, dlabels = -logits dy."""
    logits, labels = args
    return (jax.nn.sigmoid(logits) - labels) * dy, -logits * dy


def distributions(rng: np.random.Generator, dtype: Any) -> tuple:
    """Logits, and positive labels that sum to 1."""
    logits, labels = normal((4, 3))(rng, dtype)[0], rng.dirichlet(np.ones(3), 4)
    return logits, jnp.asarray(labels, dtype)


def classes(rng: np.random.Generator, dtype: Any) -> tuple:
    """Logits and integer labels."""
    return (*normal((4, 5))(rng, dtype), jnp.asarray(rng.integers(0, 5, 4), jnp.int32))


def forgets_the_bias() -> Any:
    """The forward rule, whose value is seen when a gradient is taken, has no bias."""
    f = jax.custom_vjp(dense)
    f.defvjp(
        lambda x, kernel, bias: (x @ kernel, (x, kernel, bias)),
        lambda args, dy: dense_backward(args, dy, dy),
    )
    return f


def dense_bug(name: str, backward: Backward, *says: str, batch: int = 4) -> Case:
    f = rule(dense, backward)
    return Case(f"dense, {name}", f, normal((batch, 3), (3, 3), (3,)), says)


def softmax_bug(name: str, backward: Backward, *says: str, **options: Any) -> Case:
    return Case(
        f"softmax: {name}", rule(partial(softmax, **options), backward), normal((3, 4)), says
    )


def loss_bug(name: str, backward: Backward, *says: str, loss: Any = cross_entropy) -> Case:
    return Case(f"cross entropy, {name}", rule(loss, backward), distributions, says)


def of_dx(change: Any) -> Backward:
    return lambda args, y, dy: (change(*args, dy), *dense_backward(args, y, dy)[1:])


BUGS = [
    dense_bug("dkernel: transposed", changed(dense_backward, 1, jnp.transpose), *TRANSPOSED),
    dense_bug("dkernel: mean", changed(dense_backward, 1, lambda d: d / 4), *MEAN, "factor 0.25"),
    dense_bug("dkernel: zero", changed(dense_backward, 1, jnp.zeros_like), *ZERO),
    dense_bug(
        "dkernel: samples in another order",
        lambda args, y, dy: (dy @ args[1].T, args[0][::-1].T @ dy, dy.sum(0)),
        *ORDER,
    ),
    dense_bug("dx: kernel not transposed", of_dx(lambda x, k, b, dy: dy @ k), *TRANSPOSED),
    dense_bug("dx: sign", changed(dense_backward, 0, jnp.negative), *SIGN),
    dense_bug("dx: magnitude", changed(dense_backward, 0, jnp.abs), *NOT_LINEAR, "absolute"),
    dense_bug(
        "dx and dkernel: swapped",
        lambda args, y, dy: (args[0].T @ dy, dy @ args[1].T, dy.sum(0)),
        *TRANSPOSED,
        "gradient of `",
        "each other",
        batch=3,
    ),
    dense_bug(
        "dbias: not summed",
        lambda args, y, dy: (*dense_backward(args, y, dy)[:2], dy[0]),
        "first",
        "not summed",
    ),
    dense_bug("dbias: None", lambda args, y, dy: (*dense_backward(args, y, dy)[:2], None), *ZERO),
    dense_bug(
        "dbias: for a batch of 4",
        lambda args, y, dy: (*dense_backward(args, y, dy)[:2], 4 * dy.mean(0)),
        "size",
        "shape",
    ),
    Case(
        "dense: the forward rule forgets the bias",
        forgets_the_bias(),
        normal((4, 3), (3, 3), (3,)),
        ("forward rule", "another value"),
    ),
    softmax_bug("inner product forgotten", lambda args, y, dy: (y * dy,), *FORGOTTEN),
    softmax_bug("diagonal alone", lambda args, y, dy: (y * (1 - y) * dy,), *FORGOTTEN),
    softmax_bug(
        "logits for y",
        lambda args, y, dy: softmax_backward(args, args[0], dy),
        "residual",
        *FORGOTTEN,
    ),
    softmax_bug("temperature forgotten", softmax_backward, *MEAN, *TWICE, temperature=2),
    softmax_bug(
        "sum over the batch",
        lambda args, y, dy: (y * (dy - (dy * y).sum(0)),),
        "axis 0",
        "batch",
        *FORGOTTEN,
    ),
    softmax_bug(
        "second order: y is constant",
        lambda args, y, dy: softmax_backward(args, lax.stop_gradient(y), dy),
        "second",
    ),
    Case(
        "log softmax: y for exp(y)",
        rule(
            jax.nn.log_softmax,
            lambda args, y, dy: (dy - y * dy.sum(-1, keepdims=True),),
        ),
        normal((3, 4)),
        FORGOTTEN,
    ),
    Case(
        "log softmax: as if dy summed to 1",
        rule(jax.nn.log_softmax, lambda args, y, dy: (dy - jnp.exp(y),)),
        normal((3, 4)),
        (*NOT_LINEAR, "does not vanish"),
    ),
    Case(
        "logsumexp: overflow",
        rule(logsumexp, naive_logsumexp_backward),
        normal((3, 4)),
        NOT_FINITE,
    ),
    loss_bug("dlabels: zero", changed(cross_entropy_backward, 1, jnp.zeros_like), *ZERO),
    loss_bug("dlabels: sign", changed(cross_entropy_backward, 1, jnp.negative), *SIGN),
    loss_bug("dlogits: sum", changed(cross_entropy_backward, 0, lambda d: 4 * d), *MEAN),
    loss_bug(
        "dy ignored",
        lambda args, y, dy: cross_entropy_backward(args, y, jnp.ones_like(dy)),
        *NOT_LINEAR,
        "ignore",
        "cotangent were",
    ),
    loss_bug("dlogits: smoothing forgotten", cross_entropy_backward, *FORGOTTEN, loss=smoothed),
    Case(
        "cross entropy of integers: the next class",
        rule(of_integers, partial(of_integers_backward, off=1)),
        classes,
        (*SIGN, *SHIFTED, *ORDER, "class"),
    ),
    Case(
        "binary cross entropy: sigmoid + labels",
        rule(
            binary,
            lambda args, y, dy: ((jax.nn.sigmoid(args[0]) + args[1]) * dy, -args[0] * dy),
        ),
        distributions,
        (*SIGN, *FORGOTTEN, "times `labels`"),
    ),
]
