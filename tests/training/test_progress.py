"""What is seen of a run while it trains, on a terminal and elsewhere."""

import io
import re
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from jaxcnn.training.loop import Seen
from jaxcnn.training.progress import bar, follow


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO, shown: bool = True) -> str:
    """What a run of two epochs draws until the first is over."""
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    carry: Any = SimpleNamespace(loss=40.0, correct=25)
    with bar(shown) as progress:
        watch = follow(progress, 2, 100)
        watch(Seen(5, 1, 50, 50, time.perf_counter() - 10), carry)
        watch(Seen(10, 1, 100, 100, time.perf_counter() - 20), carry)
        progress.console.print("a line")
    return re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", screen.getvalue())


def test_a_terminal_shows_how_far_it_is_and_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = drawn(monkeypatch, Terminal())
    assert "epoch 1/2" in text
    assert "loss 0.4000  accuracy  25.0%  5 images/s" in text
    assert re.search(r"\d:\d\d:\d\d left", text)
    assert "a line" in text


def test_elsewhere_there_are_only_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, io.StringIO()) == "a line\n"


def test_a_host_that_does_not_speak_for_all_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, io.StringIO(), shown=False) == ""
