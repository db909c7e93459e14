"""Several devices, of one machine or of several: which they are, and who has which rows of a batch.

Parameters are on every device. A batch is divided over the devices in the order of their machines,
so that each machine reads the rows of its own devices. `step` says what they do with them.
"""

import contextlib
import signal
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcnn.training.step import BATCH, Tree
from jaxcnn.training.stopping import LostHostError, RequestError

HEARTBEAT = 20  # seconds of silence after which a machine counts as lost
MEETING = 120  # seconds in which the machines must find each other


class Hosts(NamedTuple):
    """The machines of a run, each of which runs the same script."""

    coordinator: str  # of the first machine, as HOST:PORT
    hosts: int  # how many
    host: int  # which of them this is, from 0


@contextlib.contextmanager
def connected(devices: int | None = None, hosts: Hosts | None = None) -> Iterator[Mesh | None]:
    """Gives the devices of a run; None for a single one. Comes before anything else that asks JAX.

    Args:
        devices: how many of each host's. A CPU is divided into as many. With None, one on a single
            host, and all that there are on each of several.
        hosts: the machines, for which it waits; and for them to end, too.

    Raises:
        RequestError: a host has fewer devices, or JAX refuses the hosts. (Where they do not find
            each other, JAX aborts the process.)
        LostHostError: a host does not answer any more.
    """
    if devices is not None:
        jax.config.update("jax_num_cpu_devices", devices)
    if hosts is None:
        yield None if devices in (None, 1) else mesh(devices)
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # While it waits, in C++, Python's own handler of Ctrl-C would not be called.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.hosts,
            hosts.host,
            heartbeat_timeout_seconds=HEARTBEAT,
            initialization_timeout=MEETING,
        )
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        raise RequestError(f"{hosts.hosts} hosts at {hosts.coordinator}: {message}") from None
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        yield mesh(devices)
    except (RuntimeError, TimeoutError) as error:  # JAX's; Orbax's, which waits for all hosts
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise LostHostError(f"another host was lost, or this one failed: {message}") from None
    jax.distributed.shutdown()


def mesh(devices: int | None) -> Mesh:
    """So many devices of each host, or all; those of a host lie next to each other."""
    there = jax.local_device_count()
    each = there if devices is None else devices
    if each > there:
        raise RequestError(f"{each} devices were asked for, and there are {there}")
    chosen = [
        [device for device in jax.devices() if device.process_index == host][:each]
        for host in range(jax.process_count())
    ]
    return Mesh(np.array(chosen).ravel(), (BATCH,), axis_types=(AxisType.Auto,))


def share(size: int, mesh: Mesh | None) -> slice:
    """The rows that this machine reads of a batch of `size`: all, where it can't be divided.

    >>> share(32, None)
    slice(0, 32, None)
    """
    if mesh is None or size % mesh.size:
        return slice(0, size)
    rows = size // jax.process_count()
    return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def divide(rows: Tree, size: int, mesh: Mesh | None) -> Tree:
    """Arrays over the devices, from the rows that each machine read of a batch of `size`."""
    if mesh is None:
        return rows
    sharding = NamedSharding(mesh, P() if size % mesh.size else P(BATCH))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x, (size, *x.shape[1:])), rows
    )


def everywhere(tree: Tree, mesh: Mesh | None) -> Tree:
    """Arrays that every machine has, on all devices."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, P())
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x), x.shape), tree
    )


def fetch(rows: jax.Array) -> np.ndarray:
    """What is divided over the devices, whole, on every machine."""
    if rows.is_fully_addressable or rows.is_fully_replicated:
        return np.asarray(rows)
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def largest(number: int) -> int:
    """Of the machines' numbers. All must ask, after the same step."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.array(number))))


def agree(what: str) -> None:
    """Makes sure that all machines say the same.

    Raises:
        RequestError: they do not.
    """
    number = zlib.crc32(what.encode()) >> 2  # fits an int32, and so does its negative
    if largest(number) != -largest(-number):
        raise RequestError("the hosts were told different things, or have different data")


def is_first() -> bool:
    """Whether this machine writes the run's files and speaks for all."""
    return jax.process_index() == 0
