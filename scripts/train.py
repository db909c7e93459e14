"""Trains a model on scikit-learn's handwritten digits, with hand-derived or autodiff's gradients.

    python scripts/train.py
    python scripts/train.py --gradients autodiff --epochs 5 --out runs/autodiff

A run leaves metrics.jsonl, parameters.npz, curves.png, confusion.png and filters.png in `--out`.
The last line on standard output is its summary in JSON. Exit codes: 0, all epochs were trained;
1, the loss stopped being finite; 2, a bad argument or a missing package; 130, Ctrl-C.
"""

import contextlib
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path

from arguments import MODELS, Parser, integer, number


def main() -> int:
    parser = Parser(__doc__)
    rate = number(lambda x: 0 < x < math.inf, "positive and finite")
    momentum = number(lambda x: 0 <= x < 1, "at least 0 and below 1")
    parser.add_argument("--model", choices=MODELS, default="lenet5")
    parser.add_argument("--gradients", choices=["manual", "autodiff"], default="manual")
    parser.add_argument("--epochs", type=integer(1), default=20, metavar="N")
    parser.add_argument("--batch-size", type=integer(1), default=32, metavar="N")
    rate_help = "the highest: it rises for five epochs and falls to zero by the end"
    parser.add_argument("--learning-rate", type=rate, default=0.1, metavar="RATE", help=rate_help)
    parser.add_argument("--momentum", type=momentum, default=0.0, metavar="M")
    parser.add_argument("--seed", type=integer(0, 2**32 - 1), default=0, metavar="N")
    parser.add_argument("--out", metavar="DIR", help="default: runs/<time>")
    arguments = vars(parser.parse_args())
    parser.require("jaxcnn", "jax", "optax", "sklearn", "matplotlib", "rich")
    try:
        out = claim(arguments.pop("out"))
    except OSError as error:
        parser.error(f"argument --out: {error}")
    try:
        # Here and not above: jax takes seconds to import, and a bad argument is told at once.
        from jaxcnn.training.run import run

        summary = run(out, **arguments)
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except FloatingPointError as error:
        print(f"{parser.prog}: {error}: try a smaller --learning-rate", file=sys.stderr)
        return 1
    finally:
        release(out)
    print(json.dumps(summary))
    return 0


def claim(out: str | None) -> Path:
    """The run's directory, made if need be; an empty metrics.jsonl in it keeps others away."""
    path = fresh() if out is None else out
    os.makedirs(path, exist_ok=True)
    try:
        open(os.path.join(path, "metrics.jsonl"), "x").close()
    except FileExistsError:
        raise OSError(f"{path!r} already holds a run") from None
    return Path(path)


def fresh() -> str:
    """A new directory, named by the time and, where that one is taken, a number."""
    name = time.strftime("runs/%Y-%m-%d-%H%M%S")
    for path in itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            os.makedirs(path)
            break
    return path


def release(out: Path) -> None:
    """Nothing is left of a run that did not finish an epoch."""
    metrics = out / "metrics.jsonl"
    if metrics.stat().st_size == 0:
        metrics.unlink()
        with contextlib.suppress(OSError):
            out.rmdir()


if __name__ == "__main__":
    sys.exit(main())
