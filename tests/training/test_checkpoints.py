"""Checkpoints that come back to the last bit, and damaged ones that do not."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.training import checkpoints
from jaxcnn.training.step import Carry, start
from jaxcnn.training.stopping import NotFiniteError, RequestError


def carry(step: int = 0, width: int = 3) -> Carry:
    """One of all kinds of leaves, with numbers that depend on the step."""
    params = {"convs": [{"kernel": jnp.full((width, 2), 0.1 + step)}, {"bias": jnp.zeros(())}]}
    state = {"norm": {"mean": jnp.arange(4.0) / 3}}
    fresh = start(lambda key: (params, state), optax.adam(0.1), seed=step)
    return fresh._replace(step=jnp.int32(step))


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "checkpoints"
    checkpoints.finish(tmp_path / "checkpoints")


def save(saved: Path, *steps: int) -> None:
    for step in steps:
        checkpoints.save(saved, carry(step))
    checkpoints.finish(saved)


def assert_same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_the_last_checkpoint_comes_back_whole(saved: Path) -> None:
    assert checkpoints.last(saved) is None
    assert checkpoints.latest(saved, carry()) is None
    save(saved, 3, 12)
    assert checkpoints.last(saved) == saved / "12"
    assert_same(checkpoints.latest(saved, carry()), carry(12))


def test_saving_copies_what_the_next_step_overwrites(saved: Path) -> None:
    first = carry(3)
    checkpoints.save(saved, first)
    donated = jax.jit(lambda c: jax.tree.map(lambda x: x + 1, c), donate_argnums=0)(first)
    jax.block_until_ready(donated)
    checkpoints.finish(saved)
    assert_same(checkpoints.latest(saved, carry()), carry(3))


def test_what_nothing_can_go_on_from_is_not_saved(saved: Path) -> None:
    save(saved, 3)
    broken = carry(4)
    broken.params["convs"][0]["kernel"] *= np.inf
    with pytest.raises(NotFiniteError, match=r"params\.convs\.0\.kernel: not finite after step 4"):
        checkpoints.save(saved, broken)
    with pytest.raises(RequestError, match="has checkpoints of step 2 or later"):
        checkpoints.save(saved, carry(2))
    checkpoints.finish(saved)
    assert_same(checkpoints.latest(saved, carry()), carry(3))


def test_the_last_three_are_kept(saved: Path) -> None:
    save(saved, 1, 2, 3, 4)
    assert sorted(path.name for path in saved.iterdir() if path.name.isdigit()) == ["2", "3", "4"]


def test_one_that_is_being_written_is_not_seen(saved: Path) -> None:
    save(saved, 3)
    (saved / "12.orbax-checkpoint-tmp").mkdir()
    (saved / "12.orbax-checkpoint-tmp" / "carry").touch()
    assert checkpoints.last(saved) == saved / "3"
    assert_same(checkpoints.latest(saved, carry()), carry(3))


def contents(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(path: Path, place: float) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] ^= 0x10
    path.write_bytes(damaged)


# Orbax, stopped by an exception, leaves an event loop with transports open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage", [emptied, cut, *(functools.partial(changed, place=p) for p in (0, 0.3, 0.6, 0.9))]
)
def test_no_damage_goes_unseen(saved: Path, damage: Any) -> None:
    save(saved, 3, 12)
    good = {path: path.read_bytes() for path in contents(saved / "12")}
    seen = 0
    for path in good:
        damage(path)
        told: list[str] = []
        found = checkpoints.latest(saved, carry(), told.append)
        checkpoints.finish(saved)
        if told:
            assert told[0].startswith(f"{saved / '12'} is damaged, and left out: ")
            assert "\n" not in told[0]
            assert_same(found, carry(3))
            assert not (saved / "12").exists()
            seen += 1
        else:  # in a file that tells nothing of the carry
            assert_same(found, carry(12))
        for each, was in good.items():
            each.parent.mkdir(parents=True, exist_ok=True)
            each.write_bytes(was)
    assert seen >= 2


def test_a_checkpoint_of_another_model_is_not_taken(saved: Path) -> None:
    save(saved, 3)
    told: list[str] = []
    with pytest.raises(RequestError, match="can be read"):
        checkpoints.latest(saved, carry(width=4), told.append)
    assert len(told) == 1
    assert (saved / "3").exists()  # nothing is removed where nothing is left
