import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import draw
from jax import lax
from planting import rule

from jaxcnn.compare.contract import contract_rows, linear_row, traced_rows
from jaxcnn.compare.point import point, programs
from jaxcnn.compare.problem import problem

X, W = draw(0, 8, 8)


def checked(f, *args):
    rng = np.random.default_rng(0)
    given = problem(f, args, None, None, rng)
    made, _ = programs(given)
    return given, point(made, given.values, given.cotangents), made, rng


def row_of(name, f, *args):
    """The row of that name: what comes behind it is not run."""
    return next(row for row in rows_of(f, *args) if row.name == name)


def rows_of(f, *args):
    given, at, made, rng = checked(f, *args)
    yield from traced_rows(given, made)
    yield from contract_rows(given, at, made, rng)


def sine(backward, primal=jnp.sin):
    """sin, and what is made of its slope and dy."""
    return rule(primal, lambda args, y, dy: (backward(jnp.cos(args[0]), dy),))


def product(backward):
    return rule(lambda x, w: x * w, lambda args, y, dy: backward(*args, dy))


def right_product(x, w, dy):
    return w * dy, x * dy


NOT_LINEAR = {
    "clipped at 1": lambda slope, dy: jnp.clip(slope * dy, -1, 1),
    "clipped at 0.75": lambda slope, dy: jnp.clip(slope * dy, -0.75, 0.75),
    "a cotangent of zero gives 0.125": lambda slope, dy: slope * dy + 0.125,
    "it goes with its power 2": lambda slope, dy: slope * dy**2,
    "it goes with its power 0": lambda slope, dy: slope * jnp.sign(dy),
    "it goes with its power 3": lambda slope, dy: slope * dy**3,
    "it gives another direction": lambda slope, dy: slope * dy * (dy > 0),
    "its sign is lost": lambda slope, dy: slope * abs(dy),
    "that of a sum is not the sum": lambda slope, dy: slope * jnp.cbrt((dy**3).mean()),
    "a thousand times as large, it gives another direction": lambda s, dy: s * (dy + dy**2),
}


@pytest.mark.parametrize("said", NOT_LINEAR)
def test_not_linear_in_the_cotangent(said):
    _, at, made, rng = checked(sine(NOT_LINEAR[said]), X)
    row = linear_row(at, made, rng)
    assert (row.check, row.name, row.verdict) == ("contract", "linear in the cotangent", "WRONG")
    assert row.says.startswith("not linear")
    assert said in row.says


def test_the_absolute_value_of_one_cotangent():
    f = rule(lambda x: jnp.sin(x).sum(), lambda args, y, dy: (jnp.cos(args[0]) * abs(dy),))
    _, at, made, _ = checked(f, X)
    rows = [linear_row(at, made, np.random.default_rng(seed)) for seed in range(9)]
    assert {row.verdict for row in rows} == {"WRONG"}


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (jnp.sin, (X,)),
        (jnp.multiply, (X, W)),
        (lambda x: x.sum(), (X,)),
        (jnp.zeros_like, (X,)),
        (lambda x: (x**2, x.sum()), (1e4 * X,)),
        (jnp.sin, (np.zeros((0, 2)),)),
    ],
)
def test_linear_in_the_cotangent(f, args):
    _, at, made, rng = checked(f, *args)
    assert linear_row(at, made, rng).verdict == "ok"


def outside(f, x, **options):
    return jax.pure_callback(f, jax.ShapeDtypeStruct(x.shape, x.dtype), x, **options)


def test_not_the_same_twice():
    counter = itertools.count()

    def counted(slope, dy):
        return slope * outside(lambda dy: dy * np.asarray(1 + next(counter), dy.dtype), dy)

    row = row_of("same twice", sine(counted), X)
    assert (row.verdict, row.says) == ("WRONG", "another result for the same arguments")


def test_another_result_without_jit():
    def otherwise(slope, dy):
        return slope * dy * (1 if isinstance(dy, jax.core.Tracer) else 2)

    row = row_of("eager = jit", sine(otherwise), X)
    assert row.verdict == "WRONG"
    assert row.says.startswith("another result, off by ")
    assert row.says.endswith(": x")


def test_by_its_value_which_is_not_there_under_jit():
    f = product(lambda x, w, dy: right_product(x, w, dy) if dy.sum() > 1e9 else (w * dy, x * dy))
    with pytest.raises(jax.errors.TracerBoolConversionError):
        checked(f, X, W)


def test_not_for_vmap():
    row = row_of("vmap = loop", sine(lambda slope, dy: slope * outside(lambda dy: dy, dy)), X)
    assert row.verdict == "WRONG"
    assert row.says.startswith("raises ")


def test_another_result_under_vmap():
    def summed(slope, dy):  # over the batch as well
        flat = outside(lambda dy: dy + 0 * dy.sum() + (dy.ndim > 1), dy, vmap_method="expand_dims")
        return slope * flat

    rows = [row_of(name, sine(summed), X) for name in ("vmap = loop", "scan")]
    assert [row.verdict for row in rows] == ["WRONG", "ok"]
    assert rows[0].says.startswith("another result, off by ")


def test_replicated_beside_varying_is_refused():
    def f(x, w):
        return x * w

    row = row_of("shard_map", product(right_product), X, W)
    assert row.verdict == "note"
    assert row.says.startswith("refused")
    assert row_of("shard_map", f, X, W).verdict == "ok"


def test_not_for_shard_map():
    def looped(slope, dy):
        return lax.fori_loop(0, 1, lambda i, sum: sum + slope * dy, jnp.zeros(8, dy.dtype))

    row = row_of("shard_map", sine(looped), X)
    assert row.verdict == "WRONG"
    assert row.says.startswith("raises ")


def test_unused_gradients_are_computed_outside_jit():
    f = product(right_product)
    row = row_of("unused gradients", f, X, W)
    assert row.verdict == "note"
    assert row.says.startswith("computed in eager code: ")
    assert row_of("unused gradients", jax.jit(f), X, W).verdict == "ok"


def sines_backward(args, y, dy):
    x, w = args
    return jnp.cos(x) * w * dy, jnp.sin(x) * dy


@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
def test_a_right_rule_keeps_all_promises(dtype):
    f = jax.jit(rule(lambda x, w: (jnp.sin(x) * w).sum(), sines_backward))
    rows = list(rows_of(f, X.astype(dtype), W.astype(dtype)))
    assert [row.verdict for row in rows if row.name != "shard_map"] == ["ok"] * (len(rows) - 1)
    assert [row.name for row in rows] == [
        *("shard_map", "unused gradients"),
        *("linear in the cotangent", "same twice", "eager = jit", "vmap, scan, remat"),
    ]
