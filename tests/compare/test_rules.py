import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checking import draw
from flax import linen as nn
from jax import lax
from planting import rule, spoiled

import jaxcnn
from jaxcnn.compare import audit

X = draw(0, 5)


def sine(x):
    return jnp.sin(x)


right, doubled = (spoiled(sine, lambda g, factor=factor: (factor * g,)) for factor in (1.0, 2.0))


def convolution(sign):
    """What flax calls for one, with a rule of ours: with a wrong one, if the sign is -1."""

    def called(x, kernel, *args, **kwargs):
        def conv(x, kernel):
            return lax.conv_general_dilated(x, kernel, *args, **kwargs)

        return spoiled(conv, lambda dx, dk: (dx, sign * dk))(x, kernel)

    return called


class Block(nn.Module):
    sign: int

    @nn.compact
    def __call__(self, x):
        for sign in (1, self.sign):
            x = x + nn.relu(nn.Conv(2, (2, 2), conv_general_dilated=convolution(sign))(x))
        return x


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (2, 2), conv_general_dilated=jaxcnn.conv_general_dilated)(x)
        for number in range(4):
            x = Block(-1 if number == 3 else 1)(x)
        return nn.Dense(3)(x.mean((1, 2)))


def test_the_ninth_convolution_of_a_network_is_found():
    x = draw(1, (2, 4, 4, 2)).astype(np.float32)
    net = ResNet()
    params = jax.jit(net.init)(jax.random.key(0), x)

    def loss(params):
        logits = net.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 2])).mean()

    report = audit(loss, params)
    (finding,) = report.findings
    assert finding.startswith("gradient of 9 ")
    assert "ResNet/Block_3/Conv_1" in finding
    assert finding.endswith("kernel: the sign is wrong")
    calls = {row.name.split()[0] for row in report.rows}
    assert calls == {str(number) for number in range(1, 10)}
    for row in report.rows:
        assert row.verdict == ("WRONG" if "9 " in row.name and "kernel" in row.name else "ok")


PLACES = {
    "jit": lambda f: lambda x: jax.jit(f)(x),
    "checkpoint": lambda f: lambda x: jax.checkpoint(f)(x),
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (f(c) + 1, None), x, None, 3)[0],
    "cond": lambda f: lambda x: lax.cond(x.sum() < 99, f, right, x),
    "scan in jit in checkpoint": lambda f: jax.checkpoint(
        jax.jit(lambda x: lax.scan(lambda c, a: (c, f(a) * c), x.sum(), x)[1])
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_wrong_rule_is_found_wherever_it_is_called(place):
    report = audit(PLACES[place](doubled), X)
    assert report.findings
    assert all(finding.endswith("x: off by a constant factor 2") for finding in report.findings)
    steps = {"scan": ["step 0", "step 2"], "scan in jit in checkpoint": ["step 0", "step 4"]}
    for finding, step in zip(report.findings, steps.get(place, [""]), strict=True):
        assert "test_rules.py" in finding
        assert step in finding
    assert audit(PLACES[place](right), X).ok


def test_a_call_that_is_mapped_has_its_line():
    (finding,) = audit(lambda x: jax.vmap(doubled)(x), X).findings
    assert "test_rules.py" in finding


def test_each_call_has_rows_of_its_own_in_order():
    def f(x):
        return right(doubled(jaxcnn.relu(right(x)) + x)).sum()

    report = audit(f, X)
    gradients = [row for row in report.rows if row.check == "gradient"]
    assert [row.name.split()[0] for row in gradients] == ["1", "2", "3", "4"]
    assert [row.verdict for row in gradients] == ["ok", "ok", "WRONG", "ok"]
    assert gradients[1].name.endswith("_relu: x")
    assert report.title == "rules of f"


def test_a_wrong_value_and_a_clipped_cotangent():
    other = jax.custom_vjp(jnp.sin)
    other.defvjp(lambda x: (jnp.cos(x), x), lambda x, dy: (jnp.cos(x) * dy,))
    clipped = rule(jnp.sin, lambda args, y, dy: (jnp.clip(jnp.cos(args[0]) * dy, -9, 9),))
    report = audit(lambda x: (other(x) + clipped(x)).sum(), X)
    said = "\n".join(report.findings)
    assert "output: the forward rule returns another value" in said
    assert "linear in the cotangent: not linear in the cotangent: clipped at 9" in said
    assert len(report.findings) == 2


def test_it_is_on_the_data_that_reaches_the_rule():
    # Wrong below 0 only.
    f = rule(jnp.square, lambda args, y, dy: (2 * abs(args[0]) * dy,))
    assert audit(lambda x: f(abs(x)).sum(), X).ok
    (finding,) = audit(lambda x: f(x).sum(), X).findings
    assert finding.endswith("the absolute value of the right one")


def test_rules_of_other_libraries():
    @jax.custom_gradient
    def cube(x):
        return x**3, lambda dy: 3 * x**2 * dy

    def f(x):
        y = optax.projections.projection_simplex(x)  # no rule
        y = nn.LayerNorm().apply({"params": {"scale": x, "bias": x}}, y[None])[0]
        return optax.safe_norm(cube(y), 1e-3)

    report = audit(f, X)
    assert report.ok
    assert any(row.check == "gradient" for row in report.rows)


def test_a_function_without_rules():
    report = audit(jnp.sin, X)
    assert report.ok
    assert [row.verdict for row in report.rows] == ["note"]
    assert "no custom_vjp rule within reach" in str(report)
    assert audit(lambda x: lax.while_loop(lambda x: (x < 9).any(), lambda x: right(x) + 9, x), X).ok


def test_integers_and_constants_of_a_rule():
    def f(x):
        def taken(y, n):
            return (y * x)[n]

        return rule(taken, lambda args, y, dy: (jnp.zeros_like(args[0]), None))(x, jnp.arange(3))

    def of_integers(n):
        return n + 1

    report = audit(lambda x: x * rule(of_integers, lambda args, y, dy: (None,))(jnp.arange(5)), X)
    assert report.ok
    pure = rule(lambda y, n: y[n], lambda args, y, dy: (jnp.zeros_like(args[0]), None))
    (finding,) = audit(lambda x: pure(x, jnp.arange(3)), X).findings
    assert finding.endswith("y: all zeros: never computed")


@pytest.mark.parametrize(("f", "kind"), [(3, TypeError), (lambda x: x.astype(int), ValueError)])
def test_errors(f, kind):
    with pytest.raises(kind):
        audit(f, X)


def test_the_key_draws_the_cotangents_if_the_result_is_no_loss():
    first, again, other = (audit(right, X, key=jax.random.key(n)) for n in (0, 0, 1))
    assert first == again
    assert first != other


def test_errors_name_the_function_that_was_called():
    with pytest.raises(ValueError, match=r"^audit: no argument is a floating array"):
        audit(jnp.sin, np.arange(3))
    with pytest.raises(TypeError, match=r"^audit: `f` must be a function, got 3"):
        audit(3, X)
