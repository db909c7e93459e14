"""Run by test_optax_shipped.py: the tests in optax's wheel, with jaxcnn's losses in optax's place.

In a process of its own, for it replaces the functions in optax itself. It prints, as JSON, what the
tests found, and which of the bugs planted afterwards they found.
"""

import functools
import importlib
import json
import unittest
from collections import Counter

import jax
import jax.test_util
import numpy as np
import optax

import jaxcnn

LOSSES = {
    "huber_loss": "_regression",
    "l2_loss": "_regression",
    "safe_softmax_cross_entropy": "_classification",
    "sigmoid_binary_cross_entropy": "_classification",
    "softmax_cross_entropy": "_classification",
    "softmax_cross_entropy_with_integer_labels": "_classification",
    "squared_error": "_regression",
}
# The classes that call one of these losses, themselves or by another of optax's losses; of the
# optimisers' tests, the one that does.
TESTS = {
    "optax.losses._classification_test": (
        "PolyLossTest",
        "SafeSoftmaxCrossEntropyTest",
        "SigmoidCrossEntropyTest",
        "SigmoidFocalLossTest",
        "SoftmaxCrossEntropyTest",
        "SoftmaxCrossEntropyWithIntegerLabelsTest",
    ),
    "optax.losses._regression_test": ("HuberLossTest", "L2LossTest", "SquaredErrorTest"),
    "optax.losses._fenchel_young_test": ("FenchelYoungTest",),
    "optax._src.alias_test": ("LBFGSTest.test_multiclass_logreg",),
}


def twice(y):
    return 2 * y


def twice_the_gradient(y):
    return 2 * y - jax.lax.stop_gradient(y)


INTEGER = "softmax_cross_entropy_with_integer_labels"
INTEGER_TEST = "SoftmaxCrossEntropyWithIntegerLabelsTest"
BUGS = [
    ("huber_loss", twice, "HuberLossTest.test_batched"),
    ("l2_loss", twice, "L2LossTest.test_batched"),
    ("squared_error", twice, "SquaredErrorTest.test_batched"),
    ("sigmoid_binary_cross_entropy", twice, "SigmoidCrossEntropyTest.test_sigmoid_cross_entropy0"),
    ("safe_softmax_cross_entropy", twice, "SafeSoftmaxCrossEntropyTest.test_batched"),
    ("safe_softmax_cross_entropy", twice_the_gradient, "SafeSoftmaxCrossEntropyTest.test_gradient"),
    ("softmax_cross_entropy", twice, "SoftmaxCrossEntropyTest.test_batched"),
    ("softmax_cross_entropy", twice_the_gradient, "SoftmaxCrossEntropyTest.test_gradient"),
    (INTEGER, twice, f"{INTEGER_TEST}.test_consistent_with_softmax_cross_entropy_batched"),
    (INTEGER, twice_the_gradient, f"{INTEGER_TEST}.test_gradient"),
]


def replace(name, change=lambda y: y, calls=None):
    """jaxcnn's loss in optax, with its result changed; `calls` counts how often it is called."""

    def loss(*args, **keywords):
        if calls is not None:
            calls[name] += 1
        return change(getattr(jaxcnn, name)(*args, **keywords))

    for module in (optax, optax.losses, getattr(optax.losses, LOSSES[name])):
        setattr(module, name, loss)


def loaded(module):
    suites = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(module))
    return [test for suite in suites for test in suite]


def failures(tests):
    result = unittest.TestResult()
    unittest.TestSuite(tests).run(result)
    return {test.id(): traceback for test, traceback in result.failures + result.errors}


def main():
    jax.config.update("jax_disable_most_optimizations", True)
    np.random.seed(0)  # the stream that the tests draw from
    # A custom_vjp has no forward mode: their gradients are checked in reverse mode.
    jax.test_util.check_grads = functools.partial(jax.test_util.check_grads, modes=("rev",))

    found = {module: loaded(module) for module in TESTS}
    chosen = [
        test
        for module, tests in found.items()
        for test in tests
        if test.id().startswith(tuple(f"{module}.{name}" for name in TESTS[module]))
    ]
    classes = {type(test).__name__ for module in found for test in found[module]}
    calls = Counter()
    for name in LOSSES:
        replace(name, calls=calls)
    report = {
        "run": len(chosen),
        "failures": failures(chosen),
        "called": sorted(calls),
        "left out": sorted(classes - {type(test).__name__ for test in chosen}),
        "bugs not found": [],
    }
    for name, change, where in BUGS:
        replace(name, change)
        if not failures([test for test in chosen if f".{where}" in test.id()]):
            report["bugs not found"].append([name, change.__name__])
        replace(name)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
