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
`logits.py`, `losses.py`. Beside them are `models/`, `training/` and `compare/`.
"""

from jaxcnn import reference
from jaxcnn.activations import relu
from jaxcnn.convolution import conv, conv_input_grad, conv_kernel_grad
from jaxcnn.linear import dense, flatten
from jaxcnn.logits import log_softmax, softmax
from jaxcnn.losses import (
    binary_cross_entropy,
    categorical_cross_entropy,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from jaxcnn.pooling import avg_pool, max_pool

__all__ = [
    "avg_pool",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "conv",
    "conv_input_grad",
    "conv_kernel_grad",
    "dense",
    "flatten",
    "log_softmax",
    "max_pool",
    "reference",
    "relu",
    "sigmoid_binary_cross_entropy",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]
