"""A test that cannot fail is a defect: each bug here is planted in a rule, and a test sees it."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import pytest
import test_activations
import test_convolution
import test_fused
import test_linear
import test_logits
import test_losses
import test_normalization
import test_notes
import test_pooling
import test_regularization

from jaxcnn import (
    _taps,
    activations,
    convolution,
    fused,
    linear,
    logits,
    losses,
    normalization,
    pooling,
    regularization,
)


@contextmanager
def planted(rule, fwd, bwd, wrong_fwd, wrong_bwd):
    """The wrong pair in place of the right one, with nothing left that was compiled before."""
    rule.defvjp(wrong_fwd, wrong_bwd)
    jax.clear_caches()
    try:
        yield
    finally:
        rule.defvjp(fwd, bwd)
        jax.clear_caches()


CONV = (convolution._conv, convolution.conv_fwd, convolution.conv_bwd)
DENSE = (linear._dense, linear.dense_fwd, linear.dense_bwd)
CONV_RELU = (fused._conv_relu, fused.conv_relu_fwd, fused.conv_relu_bwd)
CONV_RELU_MAX_POOL = (
    fused._conv_relu_max_pool,
    fused.conv_relu_max_pool_fwd,
    fused.conv_relu_max_pool_bwd,
)
MAX_POOL = (pooling._max_pool, pooling.max_pool_fwd, pooling.max_pool_bwd)
AVG_POOL = (pooling._avg_pool, pooling.avg_pool_fwd, pooling.avg_pool_bwd)
RELU = (activations._relu, activations.relu_fwd, activations.relu_bwd)
SOFTMAX = (logits._softmax, logits.softmax_fwd, logits.softmax_bwd)
LOG_SOFTMAX = (logits._log_softmax, logits.log_softmax_fwd, logits.log_softmax_bwd)
BATCH_NORM = (
    normalization._batch_norm,
    normalization.batch_norm_fwd,
    normalization.batch_norm_bwd,
)
LAYER_NORM = (
    normalization._layer_norm,
    normalization.layer_norm_fwd,
    normalization.layer_norm_bwd,
)
DROPOUT = (regularization._dropout, regularization.dropout_fwd, regularization.dropout_bwd)
INTEGER = (
    losses._integer_cross_entropy,
    losses.softmax_cross_entropy_with_integer_labels_fwd,
    losses.softmax_cross_entropy_with_integer_labels_bwd,
)
SIGMOID = (
    losses._sigmoid_binary_cross_entropy,
    losses.sigmoid_binary_cross_entropy_fwd,
    losses.sigmoid_binary_cross_entropy_bwd,
)


def changed(rule, position, change):
    """The rule with the cotangent at `position` changed by a function of it."""
    _, fwd, bwd = rule

    def wrong_bwd(*args):
        cotangents = list(bwd(*args))
        cotangents[position] = change(cotangents[position])
        return tuple(cotangents)

    return rule, fwd, wrong_bwd


def conv_with(kernel_in_dx):
    """Convolution with another kernel where the input's gradient is worked out."""

    def wrong_bwd(*args):
        *statics, (x, kernel, bias), dy = args
        dx, _, _ = convolution.conv_bwd(*statics, (x, kernel_in_dx(kernel), bias), dy)
        return dx, *convolution.conv_bwd(*args)[1:]

    return CONV, convolution.conv_fwd, wrong_bwd


def every_tie_takes_the_gradient():
    """Max pooling as it is often written: by a mask of where x equals the maximum."""

    def fwd(x, window):
        y, _ = pooling.max_pool_fwd(x, window)
        return y, (x, y)

    def bwd(window, residuals, dy):
        x, y = residuals
        padded = _taps.pad(x, window.pads, -jnp.inf)
        masks = [_taps.read(padded, tap, window) == y for tap in window.offsets()]

        def written(tap, dy, *masks):
            return sum(jnp.where((tap == t) & mask, dy, 0) for t, mask in enumerate(masks))

        return (_taps.gather(window, (dy, *masks), (0,) * (1 + len(masks)), written),)

    return MAX_POOL, fwd, bwd


def relu_forgotten():
    """A convolution and ReLU whose backward pass is the convolution's."""

    def bwd(window, groups, precision, residuals, dy):
        return convolution.conv_bwd(window, groups, precision, None, residuals[0], dy)

    return CONV_RELU, fused.conv_relu_fwd, bwd


def relu_as_a_maximum():
    """With `jnp.maximum`, whose derivative at the kink is a half: seen in second order alone."""

    def fwd(*args):
        z, of_conv = convolution.conv_fwd(*args)
        y = jnp.maximum(z, 0)
        return y, (of_conv, y)

    return CONV_RELU, fwd, fused.conv_relu_bwd


def cut_off_maxima_win_where_no_tap_reads():
    """With the number that stands for "no tap" as the winner of what ReLU has cut off."""

    def fwd(*args):
        y, (of_conv, winner) = fused.conv_relu_max_pool_fwd(*args)
        return y, (of_conv, jnp.maximum(winner, -1))

    return CONV_RELU_MAX_POOL, fwd, fused.conv_relu_max_pool_bwd


def moments_held_constant():
    """Batch norm as if its moments were given: the error of a forgotten chain rule."""

    def bwd(epsilon, residuals, cotangents):
        _, _, r, scale, _ = residuals
        _, dscale, dbias = normalization.batch_norm_bwd(epsilon, residuals, cotangents)
        return cotangents[0] * scale * r, dscale, dbias

    return BATCH_NORM, normalization.batch_norm_fwd, bwd


def conv_loop():
    test_convolution.test_value_and_cotangents_are_those_of_a_float64_loop("same")


def max_pool_loop():
    test_pooling.test_max_pool_is_a_float64_loop("overlapping")


def avg_pool_loop():
    test_pooling.test_avg_pool_is_a_float64_loop("overlapping", count_include_pad=False)


def dense_definition():
    test_linear.test_dense_is_its_definition((5,))


def softmax_jacobian():
    test_logits.test_the_jacobian_is_that_of_the_definition("softmax")


def log_softmax_jacobian():
    test_logits.test_the_jacobian_is_that_of_the_definition("log_softmax")


def integer_labels():
    test_losses.test_integer_labels_are_optax_s(-1, (3, 4))


def sigmoid_loss():
    test_losses.test_sigmoid_binary_cross_entropy_is_optax_s((3, 4))


def flipped(d):
    return jnp.flip(d, (0, 1))


def transposed(d):
    return d.swapaxes(0, 1)


def shifted(d):
    return jnp.roll(d, 1, 1)


def halved(d):
    """A mean over a batch of two, where the sum belongs."""
    return d / 2


BUGS = {
    "conv, dx: sign": (changed(CONV, 0, jnp.negative), conv_loop),
    "conv, dx: kernel not flipped": (conv_with(flipped), conv_loop),
    "conv, dx: kernel transposed": (conv_with(transposed), conv_loop),
    "conv, dx: window shifted": (changed(CONV, 0, shifted), conv_loop),
    "conv, dx: last row missing": (changed(CONV, 0, lambda d: d.at[:, -1].set(0)), conv_loop),
    "conv, dkernel: sign": (changed(CONV, 1, jnp.negative), conv_loop),
    "conv, dkernel: flipped": (changed(CONV, 1, flipped), conv_loop),
    "conv, dkernel: transposed": (
        changed(CONV, 1, transposed),
        test_notes.test_kernel_gradient_sum,
    ),
    "conv, dkernel: mean for a sum": (changed(CONV, 1, halved), conv_loop),
    "conv, dkernel: window shifted": (
        changed(CONV, 1, shifted),
        test_notes.test_the_middle_output_s_gradient_with_respect_to_the_kernel_is_the_image,
    ),
    "conv, dbias: zero": (changed(CONV, 2, jnp.zeros_like), conv_loop),
    "conv, dbias: mean for a sum": (changed(CONV, 2, halved), conv_loop),
    "conv and relu: relu forgotten": (
        relu_forgotten(),
        lambda: test_fused.test_conv_relu_is_autodiff("same", with_bias=True),
    ),
    "conv and relu: half the gradient at the kink, in second order": (
        relu_as_a_maximum(),
        lambda: test_fused.test_at_the_kink_nothing_passes_in_second_order("conv_relu"),
    ),
    "conv, relu and pool: cut-off maxima pass": (
        cut_off_maxima_win_where_no_tap_reads(),
        lambda: test_fused.test_conv_relu_max_pool_is_autodiff("same", "overlapping"),
    ),
    "max pool: sign": (changed(MAX_POOL, 0, jnp.negative), max_pool_loop),
    "max pool: window shifted": (
        changed(MAX_POOL, 0, shifted),
        test_notes.test_max_pool_fills_a_matrix_of_the_image_s_size,
    ),
    "max pool: every tie takes the gradient": (
        every_tie_takes_the_gradient(),
        test_pooling.test_the_first_of_equal_maxima_takes_the_gradient,
    ),
    "avg pool: sum for a mean": (changed(AVG_POOL, 0, lambda d: 9 * d), avg_pool_loop),
    "avg pool: window shifted": (changed(AVG_POOL, 0, shifted), avg_pool_loop),
    "dense, dx: sign": (
        changed(DENSE, 0, jnp.negative),
        dense_definition,
    ),
    "dense, dkernel: mean for a sum": (
        changed(DENSE, 1, lambda d: d / 5),
        dense_definition,
    ),
    "batch norm, dx: mean and variance held constant": (
        moments_held_constant(),
        test_normalization.test_batch_norm_has_the_jacobian_of_the_definition,
    ),
    "batch norm, dscale: mean for a sum": (
        changed(BATCH_NORM, 1, lambda d: d / 6),
        test_normalization.test_batch_norm_has_the_jacobian_of_the_definition,
    ),
    "layer norm, dbias: zero": (
        changed(LAYER_NORM, 2, jnp.zeros_like),
        lambda: test_normalization.test_layer_norm_is_flax_s(-1),
    ),
    "dropout: not scaled up": (
        changed(DROPOUT, 1, halved),
        test_regularization.test_the_definition,
    ),
    "relu: the kink passes the gradient": (
        (RELU, lambda x: (jax.nn.relu(x), x >= 0), activations.relu_bwd),
        test_activations.test_the_derivative_of_relu_at_its_kink_is_zero_in_every_order,
    ),
    "softmax: the other logits forgotten": (
        (SOFTMAX, logits.softmax_fwd, lambda axis, kept, dy: (kept[0] * (1 - kept[0]) * dy, None)),
        softmax_jacobian,
    ),
    "log softmax: sign": (changed(LOG_SOFTMAX, 0, jnp.negative), log_softmax_jacobian),
    "integer labels: sign": (changed(INTEGER, 0, jnp.negative), integer_labels),
    "integer labels: mean for a sum": (changed(INTEGER, 0, lambda d: d / 12), integer_labels),
    "sigmoid loss, dlabels: zero": (changed(SIGMOID, 1, jnp.zeros_like), sigmoid_loss),
}


@pytest.mark.parametrize("bug", BUGS)
def test_every_planted_bug_turns_a_test_red(bug):
    (rule, wrong_fwd, wrong_bwd), test = BUGS[bug]
    with planted(*rule, wrong_fwd, wrong_bwd), pytest.raises(AssertionError):
        test()
