"""Models, each a page: `init(key, ...) -> params, state` and `apply(params, state, x, ...)`."""

from types import ModuleType
from typing import Any

from jaxcnn.models import lenet5, mobilenet, resnet, vgg

# By the names that the scripts take: the module, and what its `init` takes besides.
MODELS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "lenet5": (lenet5, {}),
    "vgg": (vgg, {}),
    "resnet18": (resnet, {"depth": 18}),
    "resnet50": (resnet, {"depth": 50}),
    "mobilenet": (mobilenet, {}),
}
