"""What the tests of several layers have in common."""

import jax
import numpy as np


def draw(seed, *shapes, dtype=np.float64):
    """Normal arrays, a fresh stream for each seed. Among them are no ties and no exact zeros."""
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    return arrays[0] if len(arrays) == 1 else arrays


def probabilities(seed, shape):
    return 1 / (1 + np.exp(-draw(seed, shape)))


def distributions(seed, shape):
    p = probabilities(seed, shape)
    return p / p.sum(-1, keepdims=True)


def assert_same_vjp(manual, original, *args, rtol=1e-10, seed=99):
    """Values agree, and so do the cotangents of all floating args, under a random cotangent."""
    y, manual_vjp = jax.vjp(manual, *args)
    expected, original_vjp = jax.vjp(original, *args)
    assert_close(y, expected, rtol, "value")
    assert y.dtype == expected.dtype
    dy = jax.numpy.asarray(draw(seed, y.shape), y.dtype)
    pairs = zip(manual_vjp(dy), original_vjp(dy), args, strict=True)
    for number, (found, wanted, arg) in enumerate(pairs):
        assert_close(found, wanted, rtol, f"cotangent of argument {number}")
        assert found.dtype == wanted.dtype, f"cotangent of argument {number}"
        assert found.shape == np.shape(arg), f"cotangent of argument {number}"


def assert_close(found, wanted, rtol=1e-10, what=""):
    """Equal to `rtol` of the largest element; for integers' cotangents, equally void."""
    assert np.shape(found) == np.shape(wanted), what
    if getattr(wanted, "dtype", None) == jax.dtypes.float0:
        assert found.dtype == jax.dtypes.float0, what
        return
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    finite = np.abs(wanted[np.isfinite(wanted)])
    scale = finite.max() if finite.size else 1.0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=rtol * scale, err_msg=what)
