"""A whole run: checks the gradients, trains, and leaves metrics, checkpoints and pictures.

In a run's directory are `config.json` (`settings`), `metrics.jsonl` with a line an epoch,
`checkpoints/`, and at the end, also if that is an interruption, what was learnt (`parameters.npz`,
`state.npz`) and pictures. `summary.json` comes last: a run that has it is finished.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

import jaxcnn
from jaxcnn.models import MODELS
from jaxcnn.training import (
    checkpoints,
    devices,
    events,
    loop,
    outcome,
    progress,
    settings,
    sources,
    step,
    stopping,
)
from jaxcnn.training.batches import order
from jaxcnn.training.data import Data
from jaxcnn.training.optimizers import make_optimizer, make_schedule
from jaxcnn.training.stopping import NotFiniteError, RequestError, StoppedError

OPS = {"manual": jaxcnn, "autodiff": jaxcnn.reference}
MANY = 128  # images, at most, of which gradients are compared
LISTEN = 10  # steps, after which several machines ask each other whether one was told to stop


def start(
    out: Path,
    learn: dict[str, Any],
    *,
    resume: bool,
    hosts: tuple[str, int, int] | None = None,
    **how: Any,
) -> dict[str, Any]:
    """`run`, of what a command line says. Comes before anything else that asks JAX.

    Args:
        out: the run's directory.
        learn: the settings that were given; the others are the run's, or what suits these.
        resume: whether to go on with a run.
        hosts: where there are several, the coordinator, how many, and which of them this is.
        how: `devices` of each host, `checkpoint_every` and `tensorboard`.

    Returns:
        The summary; nothing on hosts that do not speak for all.

    Raises:
        RequestError, StoppedError, NotFiniteError: as `run`.
        LostHostError: another host does not answer any more.
    """
    asked = settings.read(out, **learn) if resume else settings.make(**learn)
    if resume and (out / "summary.json").exists():
        raise RequestError(f"{str(out)!r} is finished: there is nothing to go on with")
    cache()
    with devices.connected(how.pop("devices"), hosts and devices.Hosts(*hosts)) as mesh:
        summary = run(out, asked, resume=resume, mesh=mesh, **how)
        return summary if devices.is_first() else {}


def cache() -> None:
    """Keeps compiled programs for the next run, where `JAX_COMPILATION_CACHE_DIR` does not.

    But those whose memory is in several pieces (`step.PIECE`): XLA cannot write them down, of which
    JAX would warn.
    """
    warnings.filterwarnings("ignore", ".*Multiple temp buffer allocations")
    if not jax.config.values["jax_compilation_cache_dir"]:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        if os.path.isabs(home):  # and not where there is no home
            jax.config.update("jax_compilation_cache_dir", os.path.join(home, "jaxcnn"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def run(
    out: Path,
    asked: settings.Settings,
    *,
    resume: bool = False,
    checkpoint_every: int = 1000,
    tensorboard: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> dict[str, Any]:
    """Trains a model, from the start or from where it was interrupted, and returns the summary.

    Args:
        out: the run's directory.
        asked: what to do.
        resume: whether to go on from the last checkpoint in `out`; without one, from the start.
        checkpoint_every: so many steps.
        tensorboard: whether to write event files, to `out/tensorboard`.
        mesh: from `devices.connect`.

    Raises:
        RequestError: what was asked for can't be done.
        StoppedError: a signal came. All was saved.
        NotFiniteError: a loss or a gradient was not finite.
    """
    first = devices.is_first()
    say: Callable[[str], None] = partial(print, flush=True) if first else lambda line: None
    if first and not resume:
        settings.write(out, asked)  # from now on there is a run to go on with
    data = load(asked, say)
    model, recipe, carry = prepare(asked, data, mesh)
    saved = out / "checkpoints"
    steps = math.ceil(len(data.train.labels) / asked.batch_size)  # an epoch's
    history: list[dict[str, float]] = []
    found = facts(data)
    known = settings.facts(out) if resume else {}
    if known and known != found:
        changed = ", ".join(name for name in found if known.get(name) != found[name])
        raise RequestError(f"{asked.data} has changed since the run began: {changed}")
    same = dataclasses.replace(asked, data="")  # which each host may have in another place
    devices.agree(f"{same} {found} {resume}")
    if first and not known:
        settings.write(out, asked, **found)
    if resume:
        carry = checkpoints.latest(saved, carry, say) or carry
        history = outcome.rewind(out, int(carry.step) // steps, first)
        say(f"going on after step {int(carry.step)} of {steps * asked.epochs}")
    else:
        compare(model, carry, data, asked, say)
    carry = devices.everywhere(carry, mesh)

    epoch = None
    with stopping.requests() as signalled:  # until all is written
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(checkpoints.finish, saved)
                bar = stack.enter_context(progress.bar(first))
                record = stack.enter_context(outcome.record(out, first))
                events_in = out if tensorboard and first else None
                board = stack.enter_context(events.board(events_in, int(carry.step)))
                for epoch in loop.train(
                    model,
                    OPS[asked.gradients],
                    recipe,
                    carry,
                    (data.train, data.test),
                    epochs=asked.epochs,
                    batch_size=asked.batch_size,
                    seed=asked.seed,
                    watch=progress.follow(bar, asked.epochs, len(data.train.labels)),
                    keep=keeper(saved, checkpoint_every, steps * asked.epochs, signalled),
                ):
                    history.append(epoch.metrics)
                    record(epoch.metrics)
                    board(epoch.metrics, steps)
                    line = progress.epoch_line(epoch.metrics, asked.epochs)
                    bar.console.print(line, soft_wrap=True)
        except NotFiniteError as error:
            good = checkpoints.last(saved)
            message = f"{error}; the last good checkpoint: {good or 'none yet'}"
            raise NotFiniteError(message) from None
        finally:
            if epoch and first:
                outcome.write(out, history, epoch, data)
        summary = outcome.summary(out, asked, history)
        if first:
            settings.replace(out / "summary.json", json.dumps(summary) + "\n")
    if epoch:
        say(outcome.table(epoch, data))
    return summary


def facts(data: Data) -> dict[str, Any]:
    """What must be the same when a run goes on, and what there is to know of the pictures."""
    labels = hashlib.blake2b(digest_size=8)
    for split in (data.train, data.test):
        labels.update(split.labels.tobytes())
    return {
        "classes": list(data.classes),
        "image_shape": list(data.train.images.shape[1:]),
        "pictures": [len(data.train.labels), len(data.test.labels)],
        "labels": labels.hexdigest(),
    }


def load(asked: settings.Settings, say: Callable[[str], None]) -> Data:
    """The data, with a bar while it is read."""
    with progress.reading(devices.is_first()) as watch:
        data = sources.load(asked.data, skip_bad=asked.skip_bad, watch=watch)
    if data.skipped:
        pictures = "1 picture" if data.skipped == 1 else f"{data.skipped} pictures"
        say(f"{pictures} left out, that could not be read")
    return data


def prepare(
    asked: settings.Settings, data: Data, mesh: jax.sharding.Mesh | None
) -> tuple[Any, step.Recipe, step.Carry]:
    """The model, what its steps do, and the carry before the first.

    Raises:
        RequestError: the batch or the pictures do not fit.
    """
    if mesh is not None and asked.batch_size % mesh.size:
        raise RequestError(
            f"a batch of {asked.batch_size} can't be divided over {mesh.size} devices"
        )
    model, size = MODELS[asked.model]
    shape = data.train.images.shape[1:]
    init = partial(model.init, channels=shape[-1], num_classes=len(data.classes), **size)
    rate = make_schedule(
        asked.schedule,
        asked.learning_rate,
        math.ceil(len(data.train.labels) / asked.batch_size),
        asked.epochs,
    )
    recipe = step.Recipe(
        make_optimizer(asked.optimizer, rate, asked.momentum),
        crop=asked.crop,
        flip=asked.flip,
        dtype=asked.dtype,
        mesh=mesh,
    )
    try:
        params, state = jax.eval_shape(init, jax.random.key(0))
        jax.eval_shape(model.apply, params, state, jax.ShapeDtypeStruct((1, *shape), "float32"))
    except (TypeError, ValueError) as error:
        image = "x".join(map(str, shape))
        raise RequestError(f"{asked.model} takes no images of {image}: {error}") from None
    return model, recipe, step.start(init, recipe.optimizer, asked.seed)


def compare(
    model: Any, carry: step.Carry, data: Data, asked: settings.Settings, say: Callable[[str], None]
) -> None:
    """Says how far the two gradients of the first images are apart."""
    say("manual against autodiff in float64, the first batch's gradients, largest relative error:")
    first = order(len(data.train.labels), asked.seed, 0)[: min(asked.batch_size, MANY)]
    images, labels = (rows[first] for rows in data.train)
    errors = step.gradient_errors(model, carry, images, labels)
    for name, error in errors.items():
        say(f"  {name:{max(map(len, errors))}}  {error:.1e}")


def keeper(saved: Path, every: int, total: int, signalled: Callable[[], int]) -> loop.OnStep:
    """The `keep` of `loop.train`: saves when it is time or when a signal came, which ends the run.

    After the last of the `total` steps there is nothing to go on with, and nothing is saved.
    """
    alone = jax.process_count() == 1

    def keep(seen: loop.Seen, carry: step.Carry) -> None:
        number = 0
        if alone or seen.step % LISTEN == 0:
            number = devices.largest(signalled())
        if seen.step == total or not (number or seen.step % every == 0):
            return
        if carry.broken.min() == step.NEVER:  # or the loop is about to end, and not to be saved
            where = checkpoints.save(saved, carry)
            if number:
                checkpoints.finish(saved)
                raise StoppedError(number, f"saved in {where}")

    return keep
