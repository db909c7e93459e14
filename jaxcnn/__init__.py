"""The backward pass of convolutional networks, written by hand, in JAX.

Pure functions for the layers of a CNN, each with the signature its users already call and a
gradient derived by hand, beside the code. `jaxcnn.reference` has the same functions for autodiff:

>>> import jax, jaxcnn
>>> x = jax.random.normal(jax.random.key(0), (1, 6, 6, 3))
>>> kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
>>> manual = jax.grad(lambda kernel: jaxcnn.conv(x, kernel).sum())(kernel)
>>> autodiff = jax.grad(lambda kernel: jaxcnn.reference.conv(x, kernel).sum())(kernel)
>>> bool(abs(manual - autodiff).max() < 1e-5)
True

Each file derives what it computes: `convolution.py`, `pooling.py`, `linear.py`, `activations.py`,
`logits.py`, `losses.py` and so on. `compare_gradients` and `audit` in `compare/` are for rules of
your own as well. Beside them are `models/` and `training/`.
"""

from jaxcnn import reference
from jaxcnn.activations import (
    elu,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    relu,
    relu6,
    selu,
)
from jaxcnn.compare import audit, compare_gradients, drop_custom_vjp
from jaxcnn.convolution import conv, conv_input_grad, conv_kernel_grad
from jaxcnn.fused import conv_relu, conv_relu_max_pool
from jaxcnn.general_convolution import conv_general_dilated, conv_transpose
from jaxcnn.linear import dense, flatten
from jaxcnn.logits import log_softmax, logsumexp, softmax
from jaxcnn.losses import (
    safe_softmax_cross_entropy,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from jaxcnn.normalization import batch_norm, batch_norm_inference, group_norm, layer_norm
from jaxcnn.normalized_convolution import batch_norm_relu_conv
from jaxcnn.pooling import avg_pool, max_pool, min_pool
from jaxcnn.probability_losses import binary_cross_entropy, categorical_cross_entropy
from jaxcnn.regression_losses import huber_loss, l2_loss, squared_error
from jaxcnn.regularization import dropout
from jaxcnn.smooth_activations import (
    gelu,
    glu,
    log_sigmoid,
    mish,
    sigmoid,
    silu,
    softplus,
    tanh,
)

__all__ = [
    "audit",
    "avg_pool",
    "batch_norm",
    "batch_norm_inference",
    "batch_norm_relu_conv",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "compare_gradients",
    "conv",
    "conv_general_dilated",
    "conv_input_grad",
    "conv_kernel_grad",
    "conv_relu",
    "conv_relu_max_pool",
    "conv_transpose",
    "dense",
    "drop_custom_vjp",
    "dropout",
    "elu",
    "flatten",
    "gelu",
    "glu",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "huber_loss",
    "l2_loss",
    "layer_norm",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "min_pool",
    "mish",
    "reference",
    "relu",
    "relu6",
    "safe_softmax_cross_entropy",
    "selu",
    "sigmoid",
    "sigmoid_binary_cross_entropy",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softplus",
    "squared_error",
    "tanh",
]
