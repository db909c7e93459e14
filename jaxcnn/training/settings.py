"""What a run was asked to do, and config.json, which says so to whoever goes on with it."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from jaxcnn.models import MODELS
from jaxcnn.training.stopping import RequestError

FILE = "config.json"

# What may be done to the pictures of the known data sets: by how many pixels, and whether mirrored.
CROPS = {"digits": 2, "mnist": 2, "fashion_mnist": 2, "cifar10": 4, "cifar100": 4}
FLIPS = {"fashion_mnist": True, "cifar10": True, "cifar100": True}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides what a run learns; on which devices it does so is not among it."""

    model: str = "lenet5"
    gradients: str = "manual"  # or "autodiff"
    data: str = "digits"  # another name, or a path
    skip_bad: bool = False
    crop: int = 2  # pixels
    flip: bool = False
    dtype: str = "float32"
    epochs: int = 20
    batch_size: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0
    schedule: str = "triangular"
    seed: int = 0


def make(**given: Any) -> Settings:
    """Settings where some are given, and the others are what suits these.

    Raises:
        RequestError: two of them do not go together.

    >>> make(data="cifar10", optimizer="adam").learning_rate
    0.001
    """
    data, optimizer = (given.get(name, getattr(Settings, name)) for name in ("data", "optimizer"))
    adaptive = optimizer in ("adam", "adamw")
    if adaptive and "momentum" in given:
        raise RequestError(f"momentum is not for {optimizer}, which has its own")
    suited = {
        "crop": CROPS.get(data, 0),
        "flip": FLIPS.get(data, False),
        "learning_rate": 1e-3 if adaptive else 0.1,
        "momentum": 0.9 if optimizer == "momentum" else 0.0,
    }
    return Settings(**suited | given)


def write(out: Path, settings: Settings, **facts: Any) -> None:
    """Writes config.json: the settings, and what else is known of the run."""
    kept = dataclasses.asdict(settings) | {"data": absolute(settings.data)} | facts
    replace(out / FILE, json.dumps(kept, indent=2) + "\n")


def read(out: Path, **given: Any) -> Settings:
    """The settings of a run; those that are given must be the same.

    Raises:
        RequestError: there is no run, its file can't be read, or a setting is another.
    """
    try:
        found = json.loads((out / FILE).read_text(encoding="utf-8"))
        settings = Settings(
            **{field.name: found[field.name] for field in dataclasses.fields(Settings)}
        )
        if settings.model not in MODELS:
            raise ValueError(f"there is no model {settings.model!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{str(out)!r} holds no run to go on with: {error}") from None
    for name, value in given.items():
        if (absolute(value) if name == "data" else value) != getattr(settings, name):
            raise RequestError(
                f"the run has {name} {getattr(settings, name)}, which can't become {value}"
            )
    return settings


def facts(out: Path) -> dict[str, Any]:
    """What else config.json says of a run: nothing, if it ended before its data were read."""
    known = {field.name for field in dataclasses.fields(Settings)}
    config = json.loads((out / FILE).read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if name not in known}


def absolute(data: str) -> str:
    """A path that means the same from another directory; a name is kept."""
    return data if data in CROPS or not os.path.exists(data) else os.path.abspath(data)


def replace(path: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
