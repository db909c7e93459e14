import jax
import numpy as np

import jaxcnn
from jaxcnn import reference
from jaxcnn.compare.calls import evaluate, inputs, recording

X, KERNEL, BIAS = np.ones((2, 5, 5, 1)), np.full((3, 3, 1, 4), 2.0), np.arange(4.0)


def record(run):
    calls = []
    run(recording(reference, calls))
    return calls


def test_positional_and_keyword_arguments_are_told_by_name():
    (call,) = record(lambda ops: ops.conv(X, kernel=KERNEL, bias=BIAS, padding="VALID"))
    assert call.name == "conv"
    assert list(inputs(call)) == ["x", "kernel", "bias"]
    np.testing.assert_array_equal(inputs(call)["kernel"], KERNEL)


def test_integers_and_absent_arguments_have_no_gradient():
    calls = record(
        lambda ops: ops.softmax_cross_entropy_with_integer_labels(
            ops.dense(np.ones((2, 3)), np.ones((3, 4))), np.array([0, 1])
        )
    )
    assert [list(inputs(call)) for call in calls] == [["x", "kernel"], ["logits"]]


def test_a_call_is_made_again_with_other_values_in_another_namespace():
    (call,) = record(lambda ops: ops.conv(X, kernel=KERNEL, bias=BIAS, padding="VALID"))
    y = evaluate(call, jaxcnn, {"kernel": np.zeros_like(KERNEL)})
    np.testing.assert_array_equal(y, np.broadcast_to(BIAS, (2, 3, 3, 4)))
    # The record is as it was.
    np.testing.assert_array_equal(evaluate(call, reference, {})[..., 0], np.full((2, 3, 3), 18.0))


def test_functions_that_are_no_plain_functions_are_recorded():
    assert isinstance(reference.relu, jax.custom_jvp)
    (call,) = record(lambda ops: ops.relu(X))
    assert list(inputs(call)) == ["x"]
