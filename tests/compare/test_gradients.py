import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import draw
from jax import lax
from planting import by_name, rule, spoiled

import jaxcnn
from jaxcnn.compare import compare_gradients

X, W, B = draw(0, (4, 5), (5, 3), (3,))


def dense(x, kernel, bias):
    return jnp.tanh(x @ kernel + bias)


def dense_backward(args, y, dy):
    x, kernel, _ = args
    dz = (1 - y * y) * dy
    return dz @ kernel.T, x.T @ dz, dz.sum(0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
def test_a_right_rule_is_ok(dtype):
    f = jax.jit(rule(dense, dense_backward))
    report = compare_gradients(f, *(a.astype(dtype) for a in (X, W, B)))
    report.raise_if_wrong()
    assert report.ok
    assert report.title == f"dense: x 4x5, kernel 5x3, bias 3, {np.dtype(dtype)}"
    assert {row.check for row in report.rows} == {
        *("value", "gradient", "differences", "contract", "edges"),
    }
    gradients = [row for row in report.rows if row.check == "gradient"]
    assert [row.name for row in gradients] == ["x", "kernel", "bias"]
    for row in gradients:
        assert row.figures["relative"] <= row.figures["allowed"]


@pytest.fixture
def gradients_alone(monkeypatch):
    """What comes behind the gradients takes most of the time, and has tests of its own."""
    for later in ("contract_rows", "edge_rows", "_shapes", "_differences"):
        monkeypatch.setattr(f"jaxcnn.compare.gradients.{later}", lambda *args: ())
    monkeypatch.setattr("jaxcnn.compare.gradients.derivative", lambda *args: "not tried")


def changed(number, change):
    """The rule, one of whose gradients is made another."""

    def backward(args, y, dy):
        gradients = list(dense_backward(args, y, dy))
        gradients[number] = change(gradients[number])
        return tuple(gradients)

    return rule(dense, backward)


def without_the_chain_rule(args, y, dy):
    x, kernel, _ = args
    return dy @ kernel.T, x.T @ dy, dy.sum(0)


def affine(x, kernel, bias):
    return x @ kernel + bias


def with_the_kernel_reversed(args, y, dy):
    x, kernel, _ = args
    return dy @ kernel[:, ::-1].T, x.T @ dy, dy.sum(0)


def with_another_value(x, kernel, bias):
    return dense(x, kernel, bias) + 0.1, ((x, kernel, bias), dense(x, kernel, bias))


def of_another_value():
    f = jax.custom_vjp(dense)
    f.defvjp(with_another_value, lambda kept, dy: dense_backward(*kept, dy))
    return f


BUGS = {
    "gradient of x: the sign is wrong": changed(0, jnp.negative),
    "gradient of kernel: the order along axis 0 is reversed": changed(1, lambda d: d[::-1]),
    "gradient of kernel: off by a constant factor 0.5": changed(1, lambda d: d / 2),
    "gradient of kernel: infinite or NaN at 1 of 15 places": changed(
        1, lambda d: d.at[0, 0].set(jnp.nan)
    ),
    "gradient of bias: all zeros: never computed": changed(2, jnp.zeros_like),
    "gradient of x: the last ": changed(0, lambda d: d.at[:, -1].set(0)),
    "gradient of x: wrong only at index 1 of axis 0 and index 2 of axis 1": changed(
        0, lambda d: d.at[1, 2].add(0.1)
    ),
    "gradient of kernel: float32 returned for a float64 argument": changed(
        1, lambda d: d.astype(jnp.float32)
    ),
    "gradient of kernel: rounded to bfloat16": changed(
        1, lambda d: lax.reduce_precision(d, exponent_bits=8, mantissa_bits=7)
    ),
    "gradient of x: as if `kernel` were in reverse order along axis 1": rule(
        affine, with_the_kernel_reversed
    ),
    "gradient of bias: ": rule(dense, without_the_chain_rule),
    "value, output: the forward rule returns another value than the function": of_another_value(),
}


@pytest.mark.parametrize("finding", BUGS)
@pytest.mark.usefixtures("gradients_alone")
def test_a_planted_bug_is_found_and_named(finding):
    report = compare_gradients(BUGS[finding], X, W, B)
    found = [said for said in report.findings if said.startswith(finding)]
    assert len(found) == 1, report.findings
    assert len(report.findings) == (3 if finding == "gradient of bias: " else 1)
    with pytest.raises(AssertionError) as raised:
        report.raise_if_wrong()
    assert found[0] in str(raised.value)


def test_a_gradient_of_autodiffs_that_ends_the_process_does_not_take_the_report_with_it():
    x, kernel = (np.ones(shape, np.float32) for shape in ((2, 6, 5, 3), (2, 3, 3, 4)))
    f = partial(jaxcnn.conv, strides=2, padding=((1, 2), (0, 1)))
    report = compare_gradients(f, x, kernel, cost=True)
    assert report.ok
    (row,) = (row for row in report.rows if row.check == "cost")
    assert row.says.startswith("autodiff's gradient makes XLA abort the process")


def test_a_wrong_gradient_contradicts_differences_too_and_is_json():
    f = spoiled(lambda x: jnp.sin(x), lambda g: (2 * g,))
    report = compare_gradients(f, X[0], cost=True)
    rows = {(row.check, row.name): row for row in report.rows}
    assert rows["gradient", "x"].says == "off by a constant factor 2"
    assert rows["differences", "x"].says == "central differences disagree"
    costs = {name: row for (check, name), row in rows.items() if check == "cost"}
    names = {"forward", "backward", "FLOPs", "bytes moved", "bytes kept", "compile time"}
    assert set(costs) == names | {"residuals"}
    assert all(costs[name].figures["ratio"] > 0 for name in names)
    assert all(row.verdict == "note" for row in costs.values())
    read = json.loads(report.to_json())
    assert read["findings"] == report.findings
    assert (read["ok"], len(read["rows"])) == (False, len(report.rows))
    assert "gradient of x: off by a constant factor 2" in str(report).splitlines()


def test_against_another_function():
    f = rule(jnp.sin, lambda args, y, dy: (jnp.cos(args[0]) * dy,))

    def series(x):
        return sum(
            (-1) ** k * x ** (2 * k + 1) / np.prod(np.arange(1.0, 2 * k + 2)) for k in (0, 1)
        )

    right = compare_gradients(f, X[0], against=lambda x: jnp.cos(x - np.pi / 2))
    assert right.ok
    wrong = compare_gradients(f, X[0], against=series)
    assert "value, output: another value than that of `against`" in wrong.findings


def halvings(x):
    """x, halved until the largest is below 1/8."""
    return lax.while_loop(lambda x: abs(x).max() > 0.125, lambda x: x / 2, x)


@pytest.mark.parametrize(("factor", "verdict"), [(1, "ok"), (3, "WRONG")])
def test_what_autodiff_cannot_differentiate_is_judged_by_differences(factor, verdict):
    x = np.array([0.3, -0.9, 0.2])
    f = rule(halvings, lambda args, y, dy: (factor * y / args[0] * dy,))
    report = compare_gradients(f, x)
    rows = {(row.check, row.name): row for row in report.rows}
    assert rows["gradient", "all arguments"].verdict == "note"
    assert rows["gradient", "x"].verdict == rows["differences", "x"].verdict == verdict
    assert report.ok == (verdict == "ok")


def chosen(x):
    """The largest of each row, by its index."""
    return jnp.take_along_axis(x, x.argmax(-1, keepdims=True), -1)[..., 0]


def test_a_maximum_by_its_index():
    def backward(args, y, dy):
        (x,) = args
        return (jax.nn.one_hot(x.argmax(-1), x.shape[-1], dtype=x.dtype) * dy[..., None],)

    assert compare_gradients(rule(chosen, backward), X).ok


@pytest.mark.usefixtures("gradients_alone")
def test_trees_keys_and_integers():
    def loss(params, x, labels, key):
        x = jaxcnn.dropout(key, jaxcnn.relu(jaxcnn.dense(x, **params)), 0.5)
        return jaxcnn.softmax_cross_entropy_with_integer_labels(x, labels).mean()

    given = {"kernel": W, "bias": B}, X, np.array([0, 1, 1, 2]), jax.random.key(0)
    report = compare_gradients(loss, *given, argnums=0)
    assert report.ok
    names = [row.name for row in report.rows if row.check == "gradient"]
    assert names == ["params/bias", "params/kernel"]


@pytest.mark.usefixtures("gradients_alone")
def test_the_key_is_all_that_is_drawn_by():
    f = rule(jnp.sin, lambda args, y, dy: (jnp.cos(args[0]) * dy * 1.5,))
    first, again, other = (
        compare_gradients(f, X[0], key=jax.random.key(n)).to_dict()["rows"] for n in (0, 0, 1)
    )
    assert first == again
    assert [row["figures"] for row in first] != [row["figures"] for row in other]


def test_what_raises_is_wrong_and_said():
    f = rule(jnp.sin, lambda args, y, dy: (jnp.cos(args[0]) @ dy,))
    report = compare_gradients(f, X)
    (finding,) = report.findings
    assert finding.startswith("gradient of all arguments: raises ")


def test_wrong_at_edges_and_shapes_alone():
    def backward(args, y, dy):
        (x,) = args
        share = jnp.where(x > 0, 1.0, jnp.where(x == 0, 2.0, 0.0))
        return ((share * dy).at[4:].multiply(2.0),)

    report = compare_gradients(rule(jax.nn.relu, backward), abs(X))
    rows = by_name(report.rows)
    assert rows["x"].verdict == "ok"
    assert rows["ties: x"].verdict == rows["zeros: x"].verdict == "WRONG"
    assert any(finding.startswith("edges, shapes 5x7: x") for finding in report.findings)


@pytest.mark.parametrize(
    ("args", "options", "kind"),
    [((3, X), {}, TypeError), ((jnp.sin, X), {"argnums": 4}, ValueError)],
)
def test_errors(args, options, kind):
    with pytest.raises(kind, match="compare_gradients: "):
        compare_gradients(*args, **options)
