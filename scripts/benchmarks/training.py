"""Does anything keep the step waiting? Whole epochs of training, next to the bare jitted step.

And what a user waits for: how long it is from the start of train.py to the first step, with an
empty cache of compiled programs and with what a first run left there.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from PIL import Image

import jaxcnn
from benchmarks.timing import race, speedup
from jaxcnn.models import MODELS
from jaxcnn.training import loop, sources, step
from jaxcnn.training.data import Data, Split

Record = dict[str, Any]

CLASSES = 10
SCRIPT = Path(__file__).parents[1] / "train.py"


class Case(NamedTuple):
    model: str
    batch_size: int
    images: int  # of an epoch
    shape: tuple[int, ...]  # of an image


CASES = [
    Case("lenet5", 32, 4096, (28, 28, 1)),
    Case("lenet5", 128, 8192, (28, 28, 1)),
    Case("vgg", 128, 1024, (32, 32, 3)),
]


def run(only: str, rounds: int) -> Iterator[Record]:
    """The records of the cases whose name holds `only`."""
    for case in CASES:
        for place, load in (("arrays", in_memory), ("PNGs", in_files)):
            name = f"{case.model} {case.batch_size} from {place}"
            if only in name:
                yield race_epoch(name, case, load(case), rounds)
    for name, seconds in starts(only):
        yield {"case": name, "kind": "start", "milliseconds": 1e3 * seconds, "speedup": {}}


def race_epoch(name: str, case: Case, data: Data, rounds: int) -> Record:
    """An epoch with all that belongs to it, the test of a few images included."""
    bare = bare_epoch(case, data.train)
    times = race({"manual": epoch(case, data), "bare step": bare, "control": bare}, rounds)
    return {
        "case": name,
        "kind": "training",
        "milliseconds": 1e3 * min(times["manual"]),
        "speedup": {
            "bare step": round(speedup(times, "bare step"), 3),
            "control": round(speedup(times, "control", "bare step"), 3),
        },
    }


def epoch(case: Case, data: Data) -> Callable[[], object]:
    """The next epoch, as the script trains it."""
    model, recipe, carry = prepared(case)
    epochs = loop.train(
        model, jaxcnn, recipe, carry, (data.train, data.test),
        epochs=10**6, batch_size=case.batch_size, seed=0,
    )  # fmt: skip
    return partial(next, epochs)


def bare_epoch(case: Case, split: Split) -> Callable[[], object]:
    """As many steps, all of one batch that is on the device."""
    model, recipe, carry = prepared(case)
    batch = [jax.device_put(rows[: case.batch_size]) for rows in split]
    compiled = step.compile_step(step.make_train_step(model, jaxcnn, recipe).lower(carry, *batch))

    def call() -> None:
        nonlocal carry
        for _ in range(case.images // case.batch_size):
            carry, *_ = compiled(carry, *batch)
        jax.block_until_ready(carry)

    return call


def prepared(case: Case) -> tuple[Any, step.Recipe, step.Carry]:
    model, options = MODELS[case.model]
    init = partial(model.init, channels=case.shape[-1], num_classes=CLASSES, **options)
    recipe = step.Recipe(optax.sgd(1e-3))
    return model, recipe, step.start(init, recipe.optimizer, 0)


def in_memory(case: Case) -> Data:
    """Bytes at random; and one picture of each class to test on."""
    rng = np.random.default_rng(0)

    def split(size: int) -> Split:
        images = rng.integers(0, 256, (size, *case.shape), np.uint8)
        return Split(images, np.arange(size, dtype=np.int32) % CLASSES)

    return Data(split(case.images), split(CLASSES), tuple(map(str, range(CLASSES))))


def in_files(case: Case) -> Data:
    """The same, written to a folder of PNG files and read from there."""
    data = in_memory(case)
    with tempfile.TemporaryDirectory() as folder:
        for part, split in (("train", data.train), ("test", data.test)):
            for name in data.classes:
                Path(folder, part, name).mkdir(parents=True)
            for number, (image, label) in enumerate(zip(*split, strict=True)):
                path = Path(folder, part, data.classes[label], f"{number}.png")
                Image.fromarray(image.squeeze()).save(path)
        return sources.load(folder)


def starts(only: str) -> Iterator[tuple[str, float]]:
    """Seconds from the script's start until its first step is saved."""
    for model in ("lenet5", "vgg"):
        with tempfile.TemporaryDirectory() as folder:
            for cache in ("empty", "there"):
                name = f"{model}, start to first step, cache {cache}"
                if only in name:
                    yield name, start(model, folder)


def start(model: str, folder: str) -> float:
    """Starts a run on the digits, with a cache in the folder, and ends it after its first step."""
    out = tempfile.mkdtemp(dir=folder)
    options = ["--model", model, "--checkpoint-every", "1", "--out", out]
    cache = {"JAX_COMPILATION_CACHE_DIR": os.path.join(folder, "cache")}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *options],
        env=os.environ | cache,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (saved := list(Path(out).glob("checkpoints/[0-9]*"))) and process.poll() is None:
        time.sleep(0.01)
    seconds = time.monotonic() - began
    process.terminate()
    _, stderr = process.communicate()
    if not saved:
        raise RuntimeError(stderr)
    return seconds
