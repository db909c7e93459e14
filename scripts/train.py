"""Trains a model on labelled images, with hand-derived or autodiff's gradients.

    python scripts/train.py
    python scripts/train.py --gradients autodiff --epochs 5 --out runs/autodiff
    python scripts/train.py --data cifar10 --model resnet18 --optimizer momentum --devices 4
    python scripts/train.py --data photos/ --model vgg --checkpoint-every 200 --out runs/photos
    python scripts/train.py --resume runs/photos

`--data` is digits (scikit-learn's), mnist, fashion_mnist, cifar10 or cifar100 (from Hugging Face's
hub or its cache), a folder with a folder of pictures for each class, or a data set that `datasets`
saved. Several machines each run the same line, with the number of each as `--host`, and share the
folder `--out`.

A run leaves config.json, metrics.jsonl, what it learnt (parameters.npz and state.npz) and pictures
in `--out`, and scripts/predict.py uses it. The last line on standard output is its summary in JSON.
Exit codes: 0, all epochs were trained; 1, a loss was not finite; 2, a bad argument, bad data or a
missing package; 3, another host was lost (134 where JAX aborts first); 130 and 143, Ctrl-C and
SIGTERM: what was trained is saved, and `--resume` goes on with it; 141, standard output was closed.
"""

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arguments import MODELS, Parser, address, integer, number, script
from run_directory import claim, fresh, release

LOST = 3  # the exit code


def main() -> int:
    parser = make_parser()
    learn = vars(parser.parse_args())  # what to learn; and where and how:
    how = {name: learn.pop(name) for name in ("checkpoint_every", "tensorboard", "devices")}
    coordinator, hosts, host = (learn.pop(name) for name in ("coordinator", "hosts", "host"))
    out, resume = learn.pop("out"), learn.pop("resume")
    if resume is not None and out is not None:
        parser.error("argument --out: --resume says where the run is")
    if (coordinator, hosts, host) != (None, None, None):
        if None in (coordinator, hosts, host):
            parser.error("arguments --coordinator, --hosts and --host: each needs the others")
        if host >= hosts:
            parser.error(f"argument --host: must be below {hosts}, not {host}")
        if out is None and resume is None:
            parser.error("argument --out: several hosts must be told the same")
        how["hosts"] = (coordinator, hosts, host)
    parser.require("jaxcnn", "jax", "optax", "grain", "orbax", "sklearn", "matplotlib", "rich")
    if how["tensorboard"]:
        parser.require("tensorboardX", extra="tensorboard")
    begins = resume is None and not host  # and not where another host does
    made, path = False, out if resume is None else resume
    try:
        if path is None:
            made, path = True, fresh()
        if not host:
            made |= claim(path, begins)
    except OSError as error:
        parser.error(f"argument {'--out' if resume is None else '--resume'}: {error}")
    words = f"{parser.prog}: host {host} failed, was killed, or another host was lost"
    goodbye = watched(words, path) if hosts else None
    try:
        code = train(parser, Path(path), learn, resume=resume is not None, **how)
    finally:
        if begins:
            release(Path(path), made)
    if goodbye and code != LOST:
        goodbye()
    if goodbye and code in (2, LOST):  # this host alone: JAX would wait for the others, and abort
        sys.stdout.flush()
        os._exit(code)
    return code


def train(parser: Parser, path: Path, learn: dict[str, Any], **how: Any) -> int:
    """Runs, and says in a line why it ended, if it was before its end."""
    # Here and not above: jax takes seconds to import, and a bad argument is told at once.
    from jaxcnn.training.run import start
    from jaxcnn.training.stopping import LostHostError, NotFiniteError, RequestError, StoppedError

    try:
        summary = start(path, learn, **how)
    except RequestError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except StoppedError as error:
        print(f"{parser.prog}: {error}: --resume {path} goes on", file=sys.stderr)
        return 128 + error.signal
    except NotFiniteError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except LostHostError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return LOST
    if summary:
        print(json.dumps(summary))
    return 0


def make_parser() -> Parser:
    parser = Parser(__doc__)
    rate = number(lambda x: 0 < x < math.inf, "positive and finite")
    momentum = number(lambda x: 0 <= x < 1, "at least 0 and below 1")
    # What is not given is left out: a default may hang on another argument, or be a saved run's.
    add = parser.add_argument_group(
        "what to learn", argument_default=argparse.SUPPRESS
    ).add_argument
    add("--data", metavar="NAME|PATH", help="digits, unless given; pictures of one size and mode")
    add("--skip-bad", action="store_true", help="leave out the pictures that can't be read")
    crop_help = "move pictures by up to so many; 2 for digits and MNISTs, 4 for CIFAR, else 0"
    add("--crop", type=integer(0), metavar="PIXELS", help=crop_help)
    flip_help = "mirror half of the pictures; so for Fashion-MNIST and CIFAR"
    add("--flip", action=argparse.BooleanOptionalAction, help=flip_help)
    add("--model", choices=MODELS, help="lenet5, unless given")
    add("--gradients", choices=["manual", "autodiff"], help="manual, unless given")
    dtype_help = "of the passes; parameters are float32"
    add("--dtype", choices=["float32", "bfloat16"], help=dtype_help)
    add("--epochs", type=integer(1), metavar="N", help="20, unless given")
    add("--batch-size", type=integer(1), metavar="N", help="32, unless given")
    optimizers = ["sgd", "momentum", "adam", "adamw"]
    add("--optimizer", choices=optimizers, help="sgd, unless given")
    rate_help = "0.1, and for adam and adamw 0.001, unless given"
    add("--learning-rate", type=rate, metavar="RATE", help=rate_help)
    momentum_help = "of sgd (0, unless given) and momentum (0.9)"
    add("--momentum", type=momentum, metavar="M", help=momentum_help)
    schedules = ["triangular", "constant", "cosine", "warmup_cosine"]
    schedule_help = (
        "of the rate; triangular, unless given: the lower of two lines, one that rises to the rate "
        "in five epochs, and one that falls from it to 0"
    )
    add("--schedule", choices=schedules, help=schedule_help)
    add("--seed", type=integer(0, 2**32 - 1), metavar="N", help="0, unless given")

    add = parser.add_argument_group("where and how").add_argument
    add("--out", metavar="DIR", help="default: runs/<time>")
    add("--resume", metavar="DIR", help="go on with the run there, which knows what to learn")
    every_help = "save after so many steps (1000)"
    add("--checkpoint-every", type=integer(1), default=1000, metavar="N", help=every_help)
    add("--tensorboard", action="store_true", help="write event files for TensorBoard")
    devices_help = "divide each batch over N devices (of each host); a CPU becomes as many"
    add("--devices", type=integer(1), metavar="N", help=devices_help)
    add("--coordinator", type=address, metavar="HOST:PORT", help="of host 0, of several")
    add("--hosts", type=integer(2), metavar="N", help="how many hosts run this line")
    add("--host", type=integer(0), metavar="I", help="which of them this is, from 0")
    return parser


def watched(words: str, path: str) -> Callable[[], None]:
    """Has another process say the last words of this one, unless it calls what is returned.

    JAX aborts a process where another host is lost, with a page of C++ for the reason.
    """
    end, ours = os.pipe()
    if os.fork() == 0:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        os.close(ours)
        if not os.read(end, 1):  # nothing more can come
            began = os.path.exists(os.path.join(path, "config.json"))
            rest = f": --resume {path} goes on" if began else ", before the run began"
            os.write(2, f"{words}{rest}\n".encode())
        os._exit(0)

    def goodbye() -> None:
        os.write(ours, b".")

    return goodbye


if __name__ == "__main__":
    script(main)
