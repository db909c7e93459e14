from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, draw
from jax import lax
from planting import rule

import jaxcnn
from jaxcnn import reference
from jaxcnn.compare import drop_custom_vjp
from jaxcnn.compare.jaxprs import (
    RULE,
    call_again,
    called_function,
    calls,
    calls_outside_jit,
    equations,
    operand_names,
    probes,
    watch,
    widened,
)

X = draw(0, 3)


def sine(x):
    return jnp.sin(x)


marked = rule(sine, lambda args, y, dy: (7 * dy,))  # so that its use is seen


def called_here(x):
    return marked(x)


HERE = f"test_jaxprs.py:{called_here.__code__.co_firstlineno + 1}"


def thrice(f, x):
    return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, f(s[1])), (0, x))[1]


def with_tangent(f):
    """A custom_jvp function that calls f."""

    @jax.custom_jvp
    def g(x):
        return f(x)

    g.defjvp(lambda x, v: (f(*x), jnp.cos(*x) * v[0]))
    return g


def inside_a_rule(f):
    return rule(lambda x: 2 * f(x), lambda args, y, dy: (5 * dy,))


def over_devices(f):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(f, mesh=mesh, in_specs=jax.P("d"), out_specs=jax.P("d"))


# Where a function may be called.
PLACES = {
    "alone": lambda f: f,
    "jit": jax.jit,
    "jit in jit": lambda f: jax.jit(lambda x: jax.jit(f)(2 * x)),
    "scan": lambda f: lambda x: lax.scan(lambda c, a: (f(c) * a, f(c + a)), x, jnp.arange(3.0)),
    "fori_loop": lambda f: lambda x: lax.fori_loop(0, 3, lambda i, c: f(c) + i, x),
    "cond": lambda f: lambda x: lax.cond(x.sum() < 9, f, jnp.cos, x),
    "switch": lambda f: lambda x: lax.switch(2, [jnp.cos, jnp.tan, f], x),
    "map": lambda f: lambda x: lax.map(f, x),
    "checkpoint": jax.checkpoint,
    "vmap": jax.vmap,
    "a rule": inside_a_rule,
    "a rule in jit in scan": lambda f: (
        lambda x: lax.scan(lambda c, _: (jax.jit(inside_a_rule(f))(c), None), x, None, 2)
    ),
    "custom_jvp": with_tangent,
    "shard_map": over_devices,
}


# Where the rule's own function is none of these.
WITHOUT = {
    "a rule": lambda x: 2 * jnp.sin(x),
    "a rule in jit in scan": lambda x: (2 * jnp.sin(2 * jnp.sin(x)), None),
}


def tangents(f, x):
    return jax.tree.leaves(jax.jvp(f, (x,), (x,))[1])


def pulled(f, *args):
    """The outputs and the gradients for a cotangent that is drawn."""
    outputs, pull = jax.vjp(f, *args)
    dy = jax.tree.map(lambda y: jnp.asarray(draw(9, y.shape), y.dtype), outputs)
    return jax.tree.leaves((outputs, pull(dy)))


def has_rules(f, x):
    return any(each.primitive.name == RULE for each in equations(jax.make_jaxpr(f)(x)))


@pytest.mark.parametrize("place", PLACES)
def test_rules_are_dropped_wherever_they_are_called(place):
    f = PLACES[place](marked)
    dropped, plain = drop_custom_vjp(f), WITHOUT.get(place) or PLACES[place](sine)
    (found, wanted), ruled = jax.jit(
        lambda x: ([[*pulled(g, x), *tangents(g, x)] for g in (dropped, plain)], pulled(f, x))
    )(X)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-14)
    assert not np.allclose(ruled[-1], found[len(ruled) - 1]) or place == "custom_jvp"
    assert not has_rules(dropped, X)
    assert has_rules(f, X)


def test_rules_in_a_while_loop_are_dropped():
    dropped = drop_custom_vjp(partial(thrice, marked))
    y, tangent = jax.jvp(dropped, (X,), (np.ones(3),))
    once, twice = np.sin(X), np.sin(np.sin(X))
    assert_close(y, np.sin(twice), 1e-14)
    assert_close(tangent, np.cos(X) * np.cos(once) * np.cos(twice), 1e-14)


def test_values_are_the_same_to_the_last_bit():
    x = draw(1, (2, 5, 5, 1))
    f = partial(jaxcnn.max_pool, window_shape=(2, 2))
    np.testing.assert_array_equal(drop_custom_vjp(f)(x), f(x))
    np.testing.assert_array_equal(drop_custom_vjp(marked)(X), np.asarray(marked(X)))


@pytest.mark.parametrize(
    ("f", "x", "slope"),
    [
        (jax.nn.softplus, 0.0, 0.5),
        (jax.nn.relu, 0.0, 0.0),
        (jax.nn.relu6, 6.0, 0.0),
        (jax.nn.silu, 0.0, 0.5),
        (lambda x: jnp.logaddexp(x, 0.0), 0.0, 0.5),
        (lambda x: jax.nn.softplus(x) + marked(x), 0.0, 1.5),
        (jaxcnn.softplus, 0.0, 0.5),
    ],
)
def test_tangent_rules_are_kept(f, x, slope):
    assert jax.grad(drop_custom_vjp(f))(x) == slope


def test_trees_keywords_and_what_is_no_array():
    def f(tree, mode, *, labels, key, scale=2.0, nothing=None, start=0):
        assert (mode, nothing, start) == ("sum", None, 1)
        x = marked(tree["x"][0]) * scale + jax.random.normal(key, (3,))
        return {"y": getattr(x, mode)(), "rest": (labels[start:], tree["x"][1])}

    args = {"x": [jnp.asarray(X), 2.0]}, "sum"
    given = {"labels": np.arange(3), "key": jax.random.key(0), "start": 1}
    found, wanted = drop_custom_vjp(f)(*args, **given), f(*args, **given)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(partial(assert_close, rtol=1e-15), found, wanted)
    slopes = jax.grad(lambda x: drop_custom_vjp(f)({"x": [x, 2.0]}, "sum", **given)["y"])(X)
    assert_close(slopes, 2 * np.cos(X), 1e-15)


def test_a_gradient_that_is_taken_inside_has_used_its_rules():
    assert drop_custom_vjp(jax.grad(marked))(1.0) == 7
    assert drop_custom_vjp(jax.grad(drop_custom_vjp(marked)))(1.0) == np.cos(1.0)


def test_it_can_be_transformed_and_dropped_again():
    f = drop_custom_vjp(jax.jit(jax.vmap(drop_custom_vjp(marked))))
    assert_close(jax.vmap(jax.grad(lambda x: f(x[None])[0]))(X), np.cos(X), 1e-15)
    assert_close(jax.jacfwd(jax.jit(f))(X), np.diag(np.cos(X)), 1e-15)


# Shapes of the arguments that have a gradient, if not one of (3, 4), and how the rest is given.
SHAPES = {
    "avg_pool": [(2, 4, 5, 2)],
    "batch_norm": [(2, 3, 2), (2,), (2,)],
    "batch_norm_inference": [(2, 3, 2), (2,), (2,), (2,), (2,)],
    "batch_norm_relu_conv": [(2, 4, 5, 2), (2,), (2,), (3, 3, 2, 3)],
    "binary_cross_entropy": [(3, 4), (3, 4)],
    "categorical_cross_entropy": [(3, 4), (3, 4)],
    "conv": [(2, 4, 5, 2), (3, 3, 2, 3), (3,)],
    "conv_general_dilated": [(2, 2, 4, 5), (3, 2, 3, 3)],
    "conv_relu": [(2, 4, 5, 2), (3, 3, 2, 3), (3,)],
    "conv_relu_max_pool": [(2, 4, 5, 2), (3, 3, 2, 3), (3,)],
    "conv_transpose": [(2, 4, 5, 2), (3, 3, 2, 3)],
    "dense": [(2, 3), (3, 4), (4,)],
    "group_norm": [(2, 3, 4), (4,), (4,)],
    "huber_loss": [(3, 4), (3, 4)],
    "l2_loss": [(3, 4), (3, 4)],
    "layer_norm": [(3, 4), (4,), (4,)],
    "leaky_relu": [(3, 4), (3, 4)],
    "max_pool": [(2, 4, 5, 2)],
    "min_pool": [(2, 4, 5, 2)],
    "safe_softmax_cross_entropy": [(3, 4), (3, 4)],
    "sigmoid_binary_cross_entropy": [(3, 4), (3, 4)],
    "softmax_cross_entropy": [(3, 4), (3, 4)],
    "squared_error": [(3, 4), (3, 4)],
}
POOL = {"window_shape": (3, 2), "strides": (1, 2)}
GIVEN = {
    "avg_pool": POOL,
    "conv_general_dilated": {"window_strides": (1, 1), "padding": "SAME"},
    "conv_relu_max_pool": {"pool_shape": 2, "pool_strides": 1},
    "conv_transpose": {"strides": (2, 1), "padding": "SAME"},
    "dropout": {"key": jax.random.key(1), "rate": 0.4},
    "group_norm": {"num_groups": 2},
    "max_pool": POOL,
    "min_pool": POOL,
    "softmax_cross_entropy_with_integer_labels": {"labels": np.array([1, 0, 3])},
}


def public(ops, name):
    """The function of its arguments that have a gradient."""
    f, given = getattr(ops, name), GIVEN.get(name, {})
    return (lambda x: f(x=x, **given)) if name == "dropout" else lambda *args: f(*args, **given)


def in_halves(name):
    """From -3.5 to 3.5, in halves: on kinks, and tied. Variances and probabilities are not."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-7, 8, shape) / 2 for shape in SHAPES.get(name, [(3, 4)])]
    if name == "batch_norm_inference":
        arrays[2] = abs(arrays[2]) + 1
    elif name in ("binary_cross_entropy", "categorical_cross_entropy"):
        arrays = [(abs(array) + 0.5) / 5 for array in arrays]
    return list(map(jnp.asarray, arrays))


@pytest.mark.parametrize("name", reference.__all__)
def test_each_public_function_without_its_rules_is_the_reference(name):
    args = in_halves(name)
    functions = drop_custom_vjp(public(jaxcnn, name)), public(reference, name)
    found, wanted = jax.jit(lambda *a: [pulled(f, *a) for f in functions])(*args)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-13)


# In float64 --------------------------------------------------------------------------------------

WIDENED = {
    "an elementwise function": (lambda x: 1 / (1 + jnp.exp(-x)), lambda x: 1 / (1 + np.exp(-x))),
    "a narrow constant": (lambda x: jnp.float32(1) / 3 + x, lambda x: 1 / 3 + x),
    "casts": (lambda x: x.astype(jnp.bfloat16).astype(jnp.float16) / 3, lambda x: x / 3),
    "a product": (
        lambda x: jnp.matmul(x, x.T, preferred_element_type=jnp.float32),
        lambda x: x @ x.T,
    ),
    "a mean": (lambda x: x.mean(0), lambda x: x.mean(0)),
    "a maximum": (lambda x: lax.cummax(x).max(-1), lambda x: np.maximum.accumulate(x).max(-1)),
    "jit": (jax.jit(lambda x: jnp.sqrt(abs(x))), lambda x: np.sqrt(abs(x))),
    "checkpoint": (jax.checkpoint(jnp.tanh), np.tanh),
    "a rule": (jax.vmap(marked), np.sin),
    "a tangent's rule": (jax.nn.silu, lambda x: x / (1 + np.exp(-x))),
    "zeros": (lambda x: jnp.zeros((2,), x.dtype) + x[0, 0] / 7, lambda x: np.ones(2) * x[0, 0] / 7),
    "scan": (
        lambda x: lax.scan(lambda c, a: (c / 3 + a, c), x[0], x),
        lambda x: [
            ((x[0] / 3 + x[0]) / 3 + x[1]) / 3 + x[2],
            np.stack([x[0], x[0] / 3 + x[0], (x[0] / 3 + x[0]) / 3 + x[1]]),
        ],
    ),
    "cond": (
        lambda x: lax.cond(x[0, 0] > 9, jnp.sin, lambda x: x / 3, x),
        lambda x: x / 3,
    ),
    "while": (lambda x: thrice(lambda x: x / 3, x), lambda x: x / 27),
    "a gradient": (jax.grad(lambda x: jnp.sin(x).sum()), np.cos),
    "a sort": (lambda x: jnp.sort(x, 0) / 3, lambda x: np.sort(x, 0) / 3),
    "a while loop in a scan": (
        lambda x: lax.scan(lambda c, a: (thrice(lambda x: x / 3, c) + a, None), x[0], x)[0],
        lambda x: ((x[0] / 27 + x[0]) / 27 + x[1]) / 27 + x[2],
    ),
}


@pytest.mark.parametrize("name", WIDENED)
def test_a_program_in_float64_is_numpy_s(name):
    f, in_numpy = WIDENED[name]
    narrow = [draw(2, (3, 4)).astype(dtype) for dtype in (jnp.float32, jnp.bfloat16)]
    programs = [widened(jax.make_jaxpr(f)(x)) for x in narrow]
    results = jax.jit(lambda xs: [run(x) for run, x in zip(programs, xs, strict=True)])(narrow)
    for x, found in zip(narrow, results, strict=True):
        wanted = in_numpy(x.astype(np.float64))
        for a, b in zip(found, wanted if isinstance(wanted, list) else [wanted], strict=True):
            assert a.dtype == np.float64
            assert_close(a, b, 1e-14)


def test_integers_keys_and_random_numbers_stay_as_they_are():
    def f(x, n, key):
        first, second = jax.random.split(key)
        kept = jax.random.bernoulli(first, 0.5, (50,))
        index = jnp.argsort(x).astype(jnp.int32)
        u = jax.random.uniform(second, (50,), jnp.float32)
        return n + 1, jax.random.key_data(first), kept, index, x > 0, u

    given = jnp.asarray(X, jnp.float32), np.arange(3, dtype=np.int16), jax.random.key(3)
    found, wanted = (jax.jit(g)(*given) for g in (widened(jax.make_jaxpr(f)(*given)), f))
    for a, b in zip(found[:-1], wanted[:-1], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert (found[-1].dtype, wanted[-1].dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(found[-1], wanted[-1])


def test_normal_numbers_are_those_of_the_same_bits():
    def f(key):
        return jax.random.normal(key, (50,), jnp.float32)

    key = jax.random.key(0)
    assert_close(widened(jax.make_jaxpr(f)(key))(key)[0], f(key), 1e-6)


# The calls of rules ------------------------------------------------------------------------------

W, DY = draw(3, 3), draw(4, 3)


def recorded(f, x, dy):
    """The operands and the cotangents of each call."""
    program = jax.make_jaxpr(f)(x)

    def run(x, dy):
        _, back, records = jax.vjp(partial(watch, program, [x]), probes(program), has_aux=True)
        return records, back([dy])[0]

    return jax.jit(run)(x, dy)


@pytest.mark.parametrize(
    "place",
    ["alone", "jit", "jit in jit", "cond", "switch", "checkpoint", "vmap"],
)
def test_operands_and_cotangents_of_a_call(place):
    placed = PLACES[place]
    (operands,), (dys,) = recorded(lambda x: W * placed(marked)(W * x), X, DY)
    factor = 2 if place == "jit in jit" else 1
    assert_close(operands[0], factor * W * X, 1e-15)
    assert_close(dys[0], W * DY, 1e-15)


def test_in_a_scan_those_of_all_steps_are_stacked():
    def f(x):
        return lax.scan(lambda c, _: (W * marked(c), None), x, None, 4)[0]

    carries = [X]
    for _ in range(4):
        carries.append(W * np.sin(carries[-1]))
    cotangents, dy = [], DY
    for carry in carries[3::-1]:
        cotangents.append(W * dy)
        dy = np.cos(carry) * cotangents[-1]
    (operands,), (dys,) = recorded(f, X, DY)
    assert_close(operands[0], np.stack(carries[:4]), 1e-14)
    assert_close(dys[0], np.stack(cotangents[::-1]), 1e-14)


def test_in_a_scan_backwards_with_what_is_scanned_over():
    def f(x):
        return lax.scan(lambda c, a: (c + a, marked(a * c)), 1.0, x, reverse=True)[1]

    behind = 1 + np.array([X[1] + X[2], X[2], 0])
    (operands,), (dys,) = recorded(f, X, DY)
    assert_close(operands[0], X * behind, 1e-14)
    assert_close(dys[0], DY, 1e-14)


def test_in_scans_in_jit_in_checkpoint():
    @jax.checkpoint
    @jax.jit
    def f(x):
        def inner(c, _):
            return marked(c) + 1, None

        return lax.scan(lambda c, _: (lax.scan(inner, c, None, 3)[0], None), x, None, 2)[0]

    carries, dys = [X], [DY]
    for _ in range(6):
        carries.append(np.sin(carries[-1]) + 1)
    for carry in carries[5:0:-1]:
        dys.append(np.cos(carry) * dys[-1])
    (operands,), (found,) = recorded(f, X, DY)
    assert_close(operands[0], np.reshape(carries[:6], (2, 3, 3)), 1e-14)
    assert_close(found[0], np.reshape(dys[::-1], (2, 3, 3)), 1e-14)
    (call,) = calls(jax.make_jaxpr(f)(X))
    assert call.repeats == (2, 3)


def test_a_branch_that_is_not_taken_has_zeros():
    def f(x):
        # What is taken if it is not so comes first.
        x = lax.cond(x.sum() < 9, lambda x: marked(2 * x), lambda x: marked(marked(x)), x)
        return marked(x)

    records, dys = recorded(f, X, DY)
    zero = np.zeros(3)
    for found, wanted in zip(records, [zero, zero, 2 * X, np.sin(2 * X)], strict=True):
        assert_close(found[0], wanted, 1e-15)
    for found, wanted in zip(dys, [zero, zero, np.cos(np.sin(2 * X)) * DY, DY], strict=True):
        assert_close(found[0], wanted, 1e-15)


def test_several_operands_and_outputs_some_without_a_gradient():
    def both(x, n):
        return n + 1, x * n, x

    ruled = rule(both, lambda args, y, dy: (dy[1], None))
    numbers = jnp.arange(3)
    (operands,), (dys,) = recorded(lambda x: ruled(x, numbers)[1] * 3, X, DY)
    assert_close(operands[0], X)
    np.testing.assert_array_equal(operands[1], numbers)
    assert [dy.shape for dy in dys] == [(3,), (3,)]
    assert_close(dys[0], 3 * DY, 1e-15)
    assert not dys[1].any()


def test_calls_are_named_by_function_scope_line_and_operands():
    def f(x):
        with jax.named_scope("outer"):
            x = jax.jit(jax.named_scope("inner")(marked))(x)
        return called_here(x)

    first, second = calls(jax.make_jaxpr(f)(X))
    assert (first.name, first.stack, first.repeats) == ("sine", "outer/inner", ())
    assert (second.name, second.stack, second.line) == ("sine", "", HERE)
    assert operand_names(first) == ["x"]


def test_the_line_is_that_which_calls_a_layer():
    def f(x):
        return jaxcnn.max_pool(x, (2, 2))

    (call,) = calls(jax.make_jaxpr(f)(np.ones((1, 4, 4, 1))))
    assert call.line == f"test_jaxprs.py:{f.__code__.co_firstlineno + 1}"
    assert (call.name, operand_names(call)[-1]) == ("_max_pool", "x")


def test_operands_that_are_positional_only_have_their_names():
    def positional(x, /):
        return jnp.sin(x)

    (call,) = calls(jax.make_jaxpr(rule(positional, lambda args, y, dy: (dy,)))(X))
    assert operand_names(call) == ["x"]


def test_what_a_rule_closes_over_is_a_constant():
    def f(x, w):
        return rule(lambda x: x * w, lambda args, y, dy: (dy,))(x)

    (call,) = calls(jax.make_jaxpr(jax.jit(f))(X, W))
    assert operand_names(call)[-1] == "x"


def test_a_call_can_be_made_again_with_its_rule_or_without():
    (call,) = calls(jax.make_jaxpr(marked)(X))
    assert_close(jax.vjp(call_again(call), X)[1]([jnp.ones(3)])[0], 7 * np.ones(3))
    assert_close(jax.vjp(called_function(call), X)[1]([jnp.ones(3)])[0], np.cos(X))


def test_calls_in_a_while_loop_are_out_of_reach():
    program = jax.make_jaxpr(partial(thrice, marked))(X)
    assert calls(program) == []
    assert any(equation.primitive.name == "custom_vjp_call" for equation in equations(program))
    results, records = watch(program, [X], [])
    assert_close(results[0], np.sin(np.sin(np.sin(X))), 1e-15)
    assert records == []


def test_how_many_calls_are_in_no_jit():
    def f(x):
        return marked(jax.jit(marked)(jax.checkpoint(marked)(x)))

    assert calls_outside_jit(f, X) == 2
    assert calls_outside_jit(jax.jit(f), X) == 0
    assert not has_rules(sine, X)
