import jax
import jax.numpy as jnp
import numpy as np
from checking import draw
from jax import lax
from planting import rule

from jaxcnn.compare.point import point, programs
from jaxcnn.compare.problem import problem
from jaxcnn.compare.second_order import derivative, directions, second_order_row

X = draw(0, 8)


def kept_constant(x):
    return jnp.sin(x), lax.stop_gradient(jnp.cos(x))


def second_order(backward, forward=None):
    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(forward or (lambda x: (jnp.sin(x), jnp.cos(x))), backward)
    rng = np.random.default_rng(0)
    given = problem(f, (X,), None, None, rng)
    made, _ = programs(given)
    v = directions(given, rng)
    at = point(made, given.values, given.cotangents)
    return second_order_row(given, at, made, v, derivative(given, v))


def test_wrong_in_second_order():
    row = second_order(lambda slope, dy: (slope * dy,), kept_constant)
    assert row.verdict == "WRONG"
    assert row.says == "off by 1 of the largest entry: x"
    assert second_order(lambda slope, dy: (slope * dy,)).verdict == "ok"


def test_second_order_by_a_rule_in_the_rule():
    cosine = rule(jnp.cos, lambda args, y, dy: (-jnp.sin(args[0]) * dy,))
    wrong = rule(jnp.cos, lambda args, y, dy: (jnp.sin(args[0]) * dy,))
    for slope, verdict in ((cosine, "ok"), (wrong, "WRONG")):
        row = second_order(lambda x, dy, slope=slope: (slope(x) * dy,), lambda x: (jnp.sin(x), x))
        assert row.verdict == verdict


def test_no_second_order():
    def backward(x, dy):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return (jax.pure_callback(np.cos, shape, x, vmap_method="sequential") * dy,)

    row = second_order(backward, lambda x: (jnp.sin(x), x))
    assert row.verdict == "note"
    assert row.says.startswith("there is none: ")
