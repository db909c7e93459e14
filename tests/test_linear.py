import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, draw

import jaxcnn


def check_dense(batch=(5,)):
    """Against the definition, product by product."""
    x, kernel, bias = draw(0, (*batch, 3), (3, 4), (4,))
    y, vjp = jax.vjp(jaxcnn.dense, x, kernel, bias)
    dy = draw(1, (*batch, 4))
    dx, dkernel, dbias = vjp(jnp.asarray(dy))
    assert_close(y, np.einsum("...i,io->...o", x, kernel) + bias, what="value")
    rows, cotangents = x.reshape(-1, 3), dy.reshape(-1, 4)
    assert_close(dx, np.einsum("...o,io->...i", dy, kernel), what="dx")
    assert_close(dkernel, np.einsum("ni,no->io", rows, cotangents), what="dkernel")
    assert_close(dbias, np.einsum("no->o", cotangents), what="dbias")


@pytest.mark.parametrize("batch", [(5,), (2, 3), (), (0,)])
def test_dense_is_its_definition(batch):
    check_dense(batch)


def test_dense_is_pytorch_s():
    torch = pytest.importorskip("torch")
    arrays = draw(0, (5, 3), (3, 4), (4,))
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    wanted = torch.nn.functional.linear(tensors[0], tensors[1].T, tensors[2])
    y, vjp = jax.vjp(jaxcnn.dense, *arrays)
    assert_close(y, wanted.detach().numpy())
    dy = draw(1, y.shape)
    wanted.backward(torch.tensor(dy))
    for found, tensor in zip(vjp(jnp.asarray(dy)), tensors, strict=True):
        assert_close(found, tensor.grad.numpy())


def test_dense_without_bias():
    x, kernel = draw(0, (2, 3), (3, 4))
    assert_close(jaxcnn.dense(x, kernel), x @ kernel)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2,), (0, 3, 3), (3, 0, 2)])
def test_flatten_goes_there_and_back(shape):
    x = draw(0, shape)
    y, vjp = jax.vjp(jaxcnn.flatten, x)
    np.testing.assert_array_equal(y, x.reshape(shape[0], int(np.prod(shape[1:]))))
    np.testing.assert_array_equal(vjp(y)[0], x)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3), (4, 5)), r"`kernel` of shape \(4, 5\) has 4 inputs, but `x` has shape \(2, 3\)"),
        (((2, 3), (3,)), r"`kernel` must have shape \(inputs, outputs\), got \(3,\)"),
        (((2, 3), (3, 4), (3,)), r"`bias` must have shape \(4,\)"),
        (((), (3, 4)), r"`kernel` of shape \(3, 4\) has 3 inputs, but `x` has shape \(\)"),
    ],
)
def test_bad_shapes_name_function_argument_and_value(shapes, message):
    with pytest.raises(ValueError, match=f"dense: {message}"):
        jaxcnn.dense(*map(jnp.ones, shapes))


def test_bad_dtypes_and_scalars():
    with pytest.raises(TypeError, match="dense: dtypes must be equal, got `x` float32"):
        jaxcnn.dense(jnp.ones((2, 3), jnp.float32), jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="flatten: `x` must have a batch axis"):
        jaxcnn.flatten(jnp.ones(()))
