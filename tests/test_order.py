import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn._order import after


@pytest.mark.parametrize("cause", [0.0, np.nan, np.inf, -np.inf])
def test_nothing_changes(cause):
    x = jnp.array([1.0, -2.0, np.inf, np.nan])
    np.testing.assert_array_equal(jax.jit(after)(x, jnp.full((2, 3), cause)), x)
    np.testing.assert_array_equal(after(x, jnp.zeros((0, 3))), x)
