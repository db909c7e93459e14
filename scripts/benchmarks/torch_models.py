"""The models of `jaxcnn.models` in PyTorch, layer by layer the same."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from jaxcnn.models.mobilenet import WIDTHS
from jaxcnn.models.resnet import BLOCKS
from jaxcnn.models.vgg import DROPOUT, SIX


def lenet5(channels: int, classes: int) -> nn.Module:
    """LeNet-5."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def vgg(channels: int, classes: int) -> nn.Module:
    """VGG with six convolutions."""
    layers: list[nn.Module] = []
    for widths in SIX:
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    mean: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    hidden = [nn.Linear(channels, 512), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers, *mean, *hidden, nn.Linear(512, classes))


def conv_norm(before: int, after: int, taps: int, strides: int = 1, groups: int = 1) -> nn.Module:
    """A convolution without bias, and batch norm."""
    conv = nn.Conv2d(before, after, taps, strides, taps // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class Block(nn.Module):
    """Two 3x3 convolutions, added to what went in."""

    def __init__(self, before: int, after: int, strides: int) -> None:
        super().__init__()
        parts = OrderedDict[str, nn.Module](
            first=conv_norm(before, after, 3, strides),
            relu=nn.ReLU(),
            second=conv_norm(after, after, 3),
        )
        self.layers = nn.Sequential(parts)
        changes = before != after
        self.shortcut = conv_norm(before, after, 1, strides) if changes else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Any:
        return self.relu(self.layers(x) + self.shortcut(x))


def resnet18(channels: int, classes: int) -> nn.Module:
    """ResNet-18 with the stem for images of 32x32."""
    layers: list[nn.Module] = [conv_norm(channels, 64, 3), nn.ReLU()]
    before = 64
    for number, blocks in enumerate(BLOCKS[18]):
        for place in range(blocks):
            after = 64 * 2**number
            layers.append(Block(before, after, 2 if number and not place else 1))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def mobilenet(channels: int, classes: int) -> nn.Module:
    """MobileNet with a stem for images of 32x32."""
    before = 32
    layers: list[nn.Module] = [conv_norm(channels, before, 3), nn.ReLU()]
    for place, multiple in enumerate(WIDTHS):
        after = 32 * multiple
        strides = 2 if after > before and place else 1
        layers += [conv_norm(before, before, 3, strides, groups=before), nn.ReLU()]
        layers += [conv_norm(before, after, 1), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
