import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.compare.tolerance import composed_bound, operations_per_entry, rounding_bound


def test_operations_are_counted_for_each_entry():
    def kernel_gradient(kernel, dy):
        return jax.vjp(lambda kernel: jnp.ones((50, 8)) @ kernel, kernel)[1](dy)[0]

    # 50 multiplications and 50 additions (or 49) for each entry of x^T dy.
    count = operations_per_entry(kernel_gradient, jnp.ones((8, 3)), jnp.ones((50, 3)))
    assert 98 <= count <= 101


def test_what_computes_nothing_counts_as_one_operation():
    assert operations_per_entry(lambda x, dy: dy.reshape(6), jnp.ones(6), jnp.ones((2, 3))) == 1


@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
@pytest.mark.parametrize("terms", [10, 1_000, 100_000])
def test_the_bound_holds_for_a_sum_of_random_terms_and_is_not_far_off(dtype, terms):
    rng = np.random.default_rng(terms)
    a, b = rng.standard_normal((2, 8, terms)).astype(dtype).astype(np.float64)
    # The reference in float128 where the dtype under test is float64.
    exact = (a.astype(np.longdouble) * b).sum(-1)
    sums = jnp.promote_types(dtype, jnp.float32)
    found = np.cumsum((a * b).astype(sums), axis=-1, dtype=sums)[:, -1].astype(dtype)
    error = np.abs(found.astype(np.longdouble) - exact).max() / np.abs(exact).max()
    bound = rounding_bound(2 * terms, dtype)
    assert bound / 1000 < error < bound


def test_decisions_are_allowed_to_flip_below_float64_only():
    assert composed_bound([3e-15, 4e-15], np.float64) == pytest.approx(5e-15)
    assert composed_bound([0.0] * 4, jnp.bfloat16) == pytest.approx(np.sqrt(4 / 128))
