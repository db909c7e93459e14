"""A sample of the random geometry of fuzz.py, and what it must catch."""

import os

import fuzz
import jax
import numpy as np
import pytest

import jaxcnn

# Right, and wrong in the ways that a function can be: evaluated in a process, as the module.
conv = jaxcnn.conv


def max_pool(x, *args, **keywords):
    y = jaxcnn.max_pool(x, *args, **keywords)
    return 2 * jax.lax.stop_gradient(y) - y


def min_pool(x, *args, **keywords):
    return os.abort()


def avg_pool(x, *args, **keywords):
    raise ValueError("refused")


# Where the input gradient that autodiff builds makes XLA:CPU abort the process.
ABORTS = (
    "conv",
    ((2, 6, 5, 3), (2, 3, 3, 4)),
    {"strides": 2, "padding": ((1, 2), (0, 1))},
    False,
)
# And where it aborts when XLA folds into the convolution what was written out.
FOLDED = (
    "conv",
    ((1, 4, 1, 1), (2, 2, 1, 1)),
    {"strides": (2, 1), "padding": ((1, 1), (0, 1))},
    False,
)
DILATED = (
    "max_pool",
    ((2, 7, 6, 3),),
    {"window_shape": (2, 2), "strides": (2, 1), "padding": 1, "window_dilation": (2, 3)},
    True,
)


def pool(name):
    return name, ((2, 5, 4, 2),), {"window_shape": (2, 2)}, False


def test_a_sample_is_right_by_the_reference_and_by_the_loop(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    with fuzz.processes() as evaluated:

        def judged_twice(case):
            found, wanted = evaluated(case)
            fuzz.judge(case, lambda _: (found, None))
            return found, wanted

        assert fuzz.fuzz(fuzz.convolutions(), 25, 0, judged_twice).total() == 25
        assert fuzz.fuzz(fuzz.pools(), 15, 0, judged_twice).total() == 15


def test_what_is_wrong_fails_and_the_loop_judges_where_the_reference_cannot():
    with fuzz.processes(ours="test_fuzz") as evaluated:
        with pytest.raises(AssertionError, match="cotangent of argument 0"):
            fuzz.judge(pool("max_pool"), evaluated)
        with pytest.raises(AssertionError, match="the process died"):
            fuzz.judge(pool("min_pool"), evaluated)
        with pytest.raises(AssertionError, match="ValueError: refused"):
            fuzz.judge(pool("avg_pool"), evaluated)
        with pytest.raises(AssertionError, match="cotangent of argument 0"):
            fuzz.judge(DILATED, evaluated)
        assert fuzz.judge(ABORTS, evaluated) == "aborted"
        assert fuzz.judge(FOLDED, evaluated) == "aborted"


def test_the_smallest_case_that_fails_is_printed(capsys):
    """One that is wrong under strides, against the loop."""

    def evaluated(case):
        wanted = fuzz.loop(*case)
        wrong = 2 in case[2].get("strides", ())
        return [(1 + wrong) * array for array in wanted], list(wanted)

    verdicts = fuzz.fuzz(fuzz.pools(), 100, 0, evaluated)
    assert verdicts["failed"] == 1
    smallest = "fuzz.check('max_pool', ((1, 1),), {'window_shape': (1,), 'strides': (2,)}, False)"
    assert smallest in capsys.readouterr().out


def test_arrays_have_the_ties_that_a_case_asks_for():
    assert set(np.unique(fuzz.arrays([(5, 5)], True)[0])) == {0, 1, 2}
    assert len(np.unique(fuzz.arrays([(5, 5)], False)[0])) == 25
