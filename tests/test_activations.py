import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, assert_same_vjp, draw

import jaxcnn

NAMES = ["relu", "relu6", "hard_tanh", "hard_sigmoid", "hard_swish", "leaky_relu", "elu", "selu"]
NAMES += ["sigmoid", "tanh", "softplus", "log_sigmoid", "silu", "gelu", "mish", "glu"]  # smooth
# All kinks, both signs, both tails, and what is not finite.
POINTS = np.array([0.0, -0.0, 1, -1, 3, -3, 6, 0.5, -0.5, 20, -20, 1e4, -1e4])


def pair(name):
    return getattr(jaxcnn, name), getattr(jax.nn, name)


@pytest.mark.parametrize("name", NAMES)
def test_same_as_jax_nn(name):
    assert_same_vjp(*pair(name), draw(0, (3, 4)) * 3)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "glu"])
def test_at_kinks_and_in_the_tails_too(name):
    manual, original = (jax.vmap(jax.value_and_grad(f)) for f in pair(name))
    for found, wanted in zip(manual(POINTS), original(POINTS), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_not_finite_is_not_hidden(name):
    x = jnp.array([-jnp.inf, jnp.inf, jnp.nan, 1.0])
    manual, original = pair(name)
    np.testing.assert_array_equal(jnp.isnan(manual(x)), jnp.isnan(original(x)))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "glu"])
def test_second_derivatives_at_kinks_too(name):
    points = POINTS[np.abs(POINTS) < 100]
    manual, original = (jax.vmap(jax.hessian(lambda x, f=f: f(x) ** 2)) for f in pair(name))
    np.testing.assert_allclose(manual(points), original(points), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_narrow_dtypes_are_kept(name, dtype):
    x = jnp.asarray(draw(0, (4, 6)), dtype)
    y, vjp = jax.vjp(getattr(jaxcnn, name), x)
    wanted, original = jax.vjp(getattr(jax.nn, name), x.astype(jnp.float64))
    (dx,) = vjp(jnp.ones_like(y))
    assert y.dtype == dx.dtype == dtype
    rtol = 8 * float(jnp.finfo(dtype).eps)
    assert_close(y.astype(jnp.float64), wanted, rtol)
    assert_close(dx.astype(jnp.float64), original(jnp.ones_like(wanted))[0], rtol)


@pytest.mark.parametrize("shape", [(), (4,), (3, 1), (1, 1)])
@pytest.mark.parametrize("name", ["leaky_relu", "elu"])
def test_slopes_and_alphas_are_differentiable(name, shape):
    assert_same_vjp(*pair(name), draw(0, (3, 4)), draw(1, shape))


def test_gelu_exact_and_glu_along_any_axis():
    x = draw(0, (4, 3, 2))
    assert_same_vjp(lambda x: jaxcnn.gelu(x, False), lambda x: jax.nn.gelu(x, False), x)
    assert_same_vjp(lambda x: jaxcnn.glu(x, 0), lambda x: jax.nn.glu(x, 0), x)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_integers_as_in_jax_nn(name):
    manual, original = pair(name)
    integers = jnp.array([[-1, 2], [3, 4]])
    if name not in ("sigmoid", "silu", "glu"):  # there jax.nn refuses what promotes as well as here
        assert manual(integers).dtype == original(integers).dtype
        assert_close(manual(integers), original(integers))
    if name != "glu":
        assert_close(manual(1.5), original(1.5))
        assert_close(jax.grad(manual)(1.5), jax.grad(original)(1.5))


def test_the_derivative_of_relu_at_its_kink_is_zero_in_every_order():
    assert jax.grad(jaxcnn.relu)(jnp.zeros(())) == 0
    assert jax.hessian(lambda x: jaxcnn.relu(x) ** 2)(jnp.zeros(())) == 0


def test_bad_arguments_name_function_and_argument():
    with pytest.raises(TypeError, match="relu: `x` must be an array, got list"):
        jaxcnn.relu([1.0])
    with pytest.raises(TypeError, match="elu: `alpha` must be an array, got str"):
        jaxcnn.elu(1.0, "a")
    with pytest.raises(ValueError, match=r"glu: `x` of shape \(3,\)"):
        jaxcnn.glu(jnp.ones(3))
