"""A batch in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import draw

from jaxcnn._cpu.parts import images_per_part, map_parts, once, side_by_side, sum_parts
from jaxcnn._order import after


@pytest.mark.parametrize("images", [1, 2, 4, 5, 7, 12])
def test_parts_make_the_whole(images):
    x = jnp.asarray(draw(0, (12, 3)))
    found = jax.jit(lambda x: map_parts(lambda x: (2 * x, x.sum(1)), images, x))(x)
    np.testing.assert_array_equal(found[0], 2 * x)
    np.testing.assert_allclose(found[1], x.sum(1), rtol=1e-12)
    found = jax.jit(lambda x: sum_parts(lambda x: [x.sum(0)], images, x))(x)
    np.testing.assert_allclose(found[0], x.sum(0), rtol=1e-12)


@pytest.mark.parametrize("images", [4, 5, 8])
def test_on_several_devices_a_batch_is_filled_up(images, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    test_parts_make_the_whole(images)


def test_a_batch_that_nothing_divides_is_not_copied():
    x = jnp.ones((127, 64, 64))

    def temporary(f):
        return jax.jit(f).lower(x).compile().memory_analysis().temp_size_in_bytes

    assert temporary(lambda x: sum_parts(lambda x: x.sum(0), 4, x)) < x.nbytes / 4
    assert temporary(lambda x: map_parts(lambda x: 2 * x, 4, x)) < x.nbytes / 4


def test_what_is_written_over_is_not_there_before_it_is_needed():
    x = jnp.ones((64, 64, 64))

    def chain(x):
        for _ in range(5):
            x = map_parts(lambda x: 2 * x[:, ::-1], 4, x)
        return x

    assert jax.jit(chain).lower(x).compile().memory_analysis().temp_size_in_bytes < 1.5 * x.nbytes


@pytest.mark.parametrize("images", [1, 3, 5])
def test_images_are_read_in_another_shape(images):
    x = jnp.asarray(draw(0, (5, 2, 3)))
    found = jax.jit(lambda x: sum_parts(lambda x: x.sum(0), images, x, of_image=lambda x: (6,)))(x)
    np.testing.assert_allclose(found, x.sum(0).reshape(6), rtol=1e-12)


def test_a_part_divides_the_batch_where_such_a_number_is_near(monkeypatch):
    assert [images_per_part(batch, 4) for batch in (1, 3, 12, 100, 127)] == [1, 3, 4, 4, 4]
    assert [images_per_part(batch, 5, ways=2) for batch in (1, 3, 12, 100, 127)] == [1, 3, 4, 4, 5]
    assert [images_per_part(batch, 5, ways=2) for batch in (6, 10, 50)] == [4, 4, 4]
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert images_per_part(32, 2, ways=2) == 4
    assert [images_per_part(batch, 2) for batch in (32, 24, 12, 7)] == [4, 4, 4, 1]


def doubled(x):
    half_way = once(lambda x: x + 1, x)
    return once(lambda x: 2 * x[:, ::-1], half_way), [half_way]


@pytest.mark.parametrize(("batch", "ways", "wanted"), [(8, 2, 2), (8, 1, 1), (7, 2, 1), (6, 3, 3)])
def test_side_by_side(batch, ways, wanted, monkeypatch):
    x = jnp.asarray(draw(0, (batch, 3)))
    results, kept = jax.jit(lambda x: side_by_side(doubled, ways, x))(x)
    assert (len(results), len(kept)) == (wanted, wanted if wanted > 1 else 0)
    np.testing.assert_allclose(jnp.concatenate(results), 2 * (x + 1)[:, ::-1], rtol=1e-12)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert len(side_by_side(doubled, ways, x)[0]) == 1


def test_side_by_side_no_half_waits_for_the_memory_of_the_other():
    x = jnp.ones((8, 64, 64))

    def temporary(keep):
        def f(x):
            results, kept = side_by_side(doubled, 2, x)
            return once(lambda *given: after(sum(given[:2]), *given[2:]), *results, *keep(kept))

        return jax.jit(f).lower(x).compile().memory_analysis().temp_size_in_bytes

    # Two arrays of each half: the last is in the result's place, or else in that of the first.
    assert temporary(lambda kept: kept) >= 3 * x.nbytes / 2 > temporary(lambda kept: [])


@pytest.mark.parametrize("first", [0.0, np.nan, np.inf])
def test_once_is_the_function(first):
    x = jnp.array([[first, 2.0], [3.0, 4.0]])
    double, total = jax.jit(lambda x: once(lambda x: (2 * x, x.sum(1)), x))(x)
    np.testing.assert_array_equal(double, 2 * x)
    np.testing.assert_array_equal(total, x.sum(1))
    each = jax.vmap(lambda x: once(lambda x: 2 * x, x))(x)
    np.testing.assert_array_equal(each, 2 * x)


def test_once_is_in_a_program_of_its_own():
    x = jnp.ones((8, 4))
    text = jax.jit(lambda x: once(lambda x: 2 * x, x) + 1).lower(x).compile().as_text()
    assert text.count(" call(") == 1
