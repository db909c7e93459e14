"""Ctrl-C and SIGTERM, acted upon between two steps; and why a run ended before its end."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class RequestError(ValueError):
    """What was asked for can't be done. The message says in a line what stands against it."""


class StoppedError(Exception):
    """A signal asked the run to end, and it has been saved. The message says where."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number


class NotFiniteError(FloatingPointError):
    """The loss, or a gradient, was not finite. The message says in which step, and of what."""


class LostHostError(ConnectionError):
    """Another machine of the run does not answer any more."""


@contextlib.contextmanager
def requests() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the number of the signal that came, or 0.

    A second one acts as signals do where nothing catches them: for a save that hangs.
    """
    came = 0
    before: dict[signal.Signals, object] = {}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = number
        restore()

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)  # type: ignore[arg-type]

    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is signal.SIG_IGN:
            continue  # as whoever started us wishes
        before[each] = signal.signal(each, note)
    try:
        yield lambda: came
    finally:
        restore()
