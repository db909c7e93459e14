"""What the scripts share: how they end, and arguments, checked in a line before JAX is imported."""

import argparse
import importlib.util
import io
import math
import os
import sys
from collections.abc import Callable
from typing import NoReturn

MODELS = ["lenet5", "vgg", "resnet18", "resnet50", "mobilenet"]  # keys of jaxcnn.models.MODELS


def script(main: Callable[[], int]) -> NoReturn:
    """Exits with what `main` returns; with 130 at Ctrl-C, and 141 when nobody reads any more."""
    # XLA would warn of each array that is larger than `jaxcnn.training.step.PIECE`.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of classes may be any
    try:
        try:
            sys.exit(main())
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush
        sys.exit(141)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def require(self, *packages: str, extra: str = "train") -> None:
        """Ends the script, with a line that says what to install, if one is missing."""
        for package in packages:
            if importlib.util.find_spec(package) is None:
                self.error(f"{package} is not installed: pip install 'jaxcnn[{extra}]'")


def integer(low: int, high: float = math.inf) -> Callable[[str], int]:
    """An argument's type: an integer from `low` to `high`."""
    meaning = f"an integer {f'from {low} to {high}' if high < math.inf else f'of at least {low}'}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {meaning}, not {text!r}")
        return value

    return parse


def address(text: str) -> str:
    """An argument's type: HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, not {text!r}")
    return text


def number(valid: Callable[[float], bool], meaning: str) -> Callable[[str], float]:
    """An argument's type: a number that is valid, or an error that says what it must be."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not valid(value):
            raise argparse.ArgumentTypeError(f"must be {meaning}, not {text!r}")
        return value

    return parse
