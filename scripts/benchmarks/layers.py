"""The layers to race: geometries of published networks, and odd ones.

Images are channels last for JAX, and in memory for PyTorch as well (`channels_last`). Padding is
given in elements, the same on both sides, because that is all that PyTorch takes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Shape = tuple[int, ...]


class Layer(NamedTuple):
    """A function of arrays, for JAX and for PyTorch; each array has a gradient."""

    name: str
    arrays: dict[str, Shape]  # by role, which says how PyTorch lays it out
    jax: Callable[..., Any]  # of a namespace of operations, and the arrays
    torch: Callable[..., Any]  # of torch.nn.functional, and the arrays in PyTorch's layout


def conv(
    name: str,
    x: Shape,
    taps: Sequence[int],
    features: int,
    *,
    strides: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> Layer:
    """A convolution to `features` channels; half a kernel of padding where none is given."""
    same = dilation * (taps[0] // 2) if padding is None else padding
    arrays = {"x": x, "kernel": (*taps, x[-1] // groups, features)}
    if bias:
        arrays["bias"] = (features,)

    def in_jax(ops: Any, x: Any, kernel: Any, bias: Any = None) -> Any:
        return ops.conv(
            x,
            kernel,
            bias,
            strides=strides,
            padding=same,
            kernel_dilation=dilation,
            feature_group_count=groups,
        )

    def in_torch(functional: Any, x: Any, kernel: Any, bias: Any = None) -> Any:
        convolve = getattr(functional, f"conv{len(taps)}d")
        return convolve(x, kernel, bias, strides, same, dilation, groups)

    return Layer(name, arrays, in_jax, in_torch)


def conv_transpose(name: str, x: Shape, taps: int, features: int, padding: int) -> Layer:
    """A transposed convolution by strides 2, which doubles the image."""

    def in_jax(ops: Any, x: Any, kernel: Any) -> Any:
        pad = taps - 1 - padding
        return ops.conv_transpose(x, kernel, (2, 2), [(pad, pad)] * 2, transpose_kernel=True)

    def in_torch(functional: Any, x: Any, kernel: Any) -> Any:
        return functional.conv_transpose2d(x, kernel, stride=2, padding=padding)

    return Layer(name, {"x": x, "kernel": (taps, taps, features, x[-1])}, in_jax, in_torch)


def pool(
    name: str, kind: str, x: Shape, taps: Sequence[int], strides: int, padding: int = 0
) -> Layer:
    """A maximum or a mean over windows."""
    axes = len(taps)

    def in_jax(ops: Any, x: Any) -> Any:
        pads = [(padding, padding)] * axes
        return getattr(ops, f"{kind}_pool")(x, tuple(taps), (strides,) * axes, pads)

    def in_torch(functional: Any, x: Any) -> Any:
        return getattr(functional, f"{kind}_pool{axes}d")(x, tuple(taps), strides, padding)

    return Layer(name, {"x": x}, in_jax, in_torch)


def activation(name: str, kind: str, x: Shape, **options: Any) -> Layer:
    """An elementwise function that JAX and PyTorch call alike."""
    return Layer(
        name,
        {"x": x},
        lambda ops, x: getattr(ops, kind)(x),
        lambda functional, x: getattr(functional, kind)(x, **options),
    )


LAYERS = [
    # LeNet-5
    conv("lenet 5x5 1>6", (128, 28, 28, 1), (5, 5), 6, bias=True),
    conv("lenet 5x5 6>16", (128, 14, 14, 6), (5, 5), 16, padding=0, bias=True),
    pool("lenet max 2x2", "max", (128, 28, 28, 6), (2, 2), 2),
    # VGG on images of 32x32
    conv("vgg 3x3 3>64", (128, 32, 32, 3), (3, 3), 64, bias=True),
    conv("vgg 3x3 64>64", (128, 32, 32, 64), (3, 3), 64, bias=True),
    conv("vgg 3x3 64>128", (128, 16, 16, 64), (3, 3), 128, bias=True),
    conv("vgg 3x3 128>128", (128, 16, 16, 128), (3, 3), 128, bias=True),
    conv("vgg 3x3 128>256", (128, 8, 8, 128), (3, 3), 256, bias=True),
    conv("vgg 3x3 256>256", (128, 8, 8, 256), (3, 3), 256, bias=True),
    pool("vgg max 2x2 64", "max", (128, 32, 32, 64), (2, 2), 2),
    pool("vgg max 2x2 256", "max", (128, 8, 8, 256), (2, 2), 2),
    # VGG-16 on images of 224x224
    conv("vgg16 3x3 64>64", (2, 224, 224, 64), (3, 3), 64, bias=True),
    conv("vgg16 3x3 512>512", (16, 14, 14, 512), (3, 3), 512, bias=True),
    # ResNet-50 on images of 224x224
    conv("resnet 7x7/2 3>64", (16, 224, 224, 3), (7, 7), 64, strides=2),
    pool("resnet max 3x3/2", "max", (16, 112, 112, 64), (3, 3), 2, 1),
    conv("resnet 1x1 64>256", (16, 56, 56, 64), (1, 1), 256),
    conv("resnet 1x1 256>64", (16, 56, 56, 256), (1, 1), 64),
    conv("resnet 3x3 64>64", (16, 56, 56, 64), (3, 3), 64),
    conv("resnet 3x3/2 128>128", (16, 56, 56, 128), (3, 3), 128, strides=2),
    conv("resnet 1x1/2 256>512", (16, 56, 56, 256), (1, 1), 512, strides=2),
    conv("resnet 3x3 256>256", (16, 14, 14, 256), (3, 3), 256),
    conv("resnet 3x3 512>512", (16, 7, 7, 512), (3, 3), 512),
    conv("resnet 1x1 512>2048", (16, 7, 7, 512), (1, 1), 2048),
    pool("resnet mean 7x7", "avg", (16, 7, 7, 2048), (7, 7), 1),
    # ResNet-18 on images of 32x32
    conv("resnet18 3x3/2 64>128", (64, 32, 32, 64), (3, 3), 128, strides=2),
    conv("resnet18 3x3 512>512", (64, 4, 4, 512), (3, 3), 512),
    # MobileNet: depthwise on images of 32x32 and of 224x224
    conv("mobilenet dw 3x3 64", (64, 32, 32, 64), (3, 3), 64, groups=64),
    conv("mobilenet dw 3x3/2 64", (64, 32, 32, 64), (3, 3), 64, strides=2, groups=64),
    conv("mobilenet dw 3x3 512", (64, 4, 4, 512), (3, 3), 512, groups=512),
    conv("mobilenet dw 3x3 32", (16, 112, 112, 32), (3, 3), 32, groups=32),
    conv("mobilenet dw 3x3/2 128", (16, 56, 56, 128), (3, 3), 128, strides=2, groups=128),
    conv("mobilenet 1x1 512>512", (64, 4, 4, 512), (1, 1), 512),
    # U-Net: transposed convolutions, and large images
    conv_transpose("unet 2x2 up 128>64", (8, 32, 32, 128), 2, 64, 0),
    conv_transpose("dcgan 4x4 up 128>64", (32, 16, 16, 128), 4, 64, 1),
    conv("unet 3x3 32>32", (4, 128, 128, 32), (3, 3), 32, bias=True),
    # Odd ones
    conv("5x5 32>32", (64, 28, 28, 32), (5, 5), 32),
    conv("3x3 dilation 2 64>64", (16, 32, 32, 64), (3, 3), 64, dilation=2),
    conv("resnext 3x3 128, 32 groups", (16, 28, 28, 128), (3, 3), 128, groups=32),
    conv("1-D audio 9 64>64", (16, 4096, 64), (9,), 64),
    conv("1-D audio 80/4 1>64", (16, 16000, 1), (80,), 64, strides=4, padding=38),
    conv("1-D depthwise 31 128", (16, 1024, 128), (31,), 128, groups=128),
    conv("3-D 3x3x3 16>16", (4, 16, 32, 32, 16), (3, 3, 3), 16),
    conv("batch 1 3x3 64>64", (1, 56, 56, 64), (3, 3), 64),
    conv("batch 127 3x3 64>64", (127, 16, 16, 64), (3, 3), 64),
    pool("max 3x3", "max", (64, 28, 28, 32), (3, 3), 1, 1),
    pool("max 2x2x2", "max", (4, 16, 32, 32, 16), (2, 2, 2), 2),
    pool("mean 3x3/2", "avg", (64, 28, 28, 32), (3, 3), 2, 1),
    pool("mean 2x2", "avg", (128, 32, 32, 64), (2, 2), 2),
    # What is between them
    activation("relu", "relu", (128, 32, 32, 64)),
    activation("gelu", "gelu", (128, 16, 16, 64), approximate="tanh"),
    Layer(
        "batch norm",
        {"x": (128, 32, 32, 64), "scale": (64,), "bias": (64,)},
        lambda ops, x, scale, bias: ops.batch_norm(x, scale, bias)[0],
        lambda functional, x, scale, bias: functional.batch_norm(
            x, None, None, scale, bias, training=True
        ),
    ),
    Layer(
        "dense 1024>1024",
        {"vector": (256, 1024), "matrix": (1024, 1024), "bias": (1024,)},
        lambda ops, x, kernel, bias: ops.dense(x, kernel, bias),
        lambda functional, x, kernel, bias: functional.linear(x, kernel, bias),
    ),
    Layer(
        "log softmax 1000",
        {"vector": (1024, 1000)},
        lambda ops, x: ops.log_softmax(x),
        lambda functional, x: functional.log_softmax(x, -1),
    ),
]
