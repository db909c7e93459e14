from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import draw

from jaxcnn import _cotangent


@pytest.mark.parametrize("shape", [(3, 4), (4,), (3, 1), (1, 4), (1, 1), (), (1,)])
def test_the_adjoint_of_broadcasting_is_a_sum(shape):
    cotangent = jnp.asarray(draw(0, (3, 4)))
    _, vjp = jax.vjp(lambda x: jnp.broadcast_to(x, (3, 4)), jnp.zeros(shape))
    np.testing.assert_allclose(_cotangent.match(cotangent, jnp.zeros(shape)), vjp(cotangent)[0])


def test_the_dtype_is_the_primal_s():
    matched = _cotangent.match(jnp.ones(3, jnp.float32), jnp.zeros(3, jnp.bfloat16))
    assert matched.dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
def test_an_integer_has_no_cotangent(dtype):
    assert _cotangent.match(jnp.ones(3), jnp.zeros(3, dtype)) is None


def test_the_adjoint_of_replication_is_a_sum_over_devices():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    @partial(jax.shard_map, mesh=mesh, in_specs=(spec("data"), spec()), out_specs=spec())
    def matched(cotangent, primal):
        return _cotangent.match(cotangent, primal)  # check_vma refuses one that varies

    np.testing.assert_array_equal(matched(jnp.ones(3), jnp.zeros(3)), jnp.ones(3))
