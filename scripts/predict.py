"""Says what a trained model takes pictures for.

    python scripts/predict.py runs/first three.png
    python scripts/predict.py runs/first photos/*.jpg --top 5 --saliency looked
    python scripts/predict.py runs/first scan.png --invert --json

RUN is a directory that scripts/train.py left. A picture of any format, mode and size will do: it is
laid over white where it is transparent, made grey or RGB, and resized to what the model was trained
on, whatever its proportions (bilinearly, with antialiasing). A line a picture says what it is taken
for, and how likely that is to the model; with `--json` the line is a JSON object. Exit codes: 0; 1,
a picture could not be read, or a map not be written, and a line on standard error says why; 2, a
bad argument, no trained model in RUN or a missing package; 130, Ctrl-C.
"""

import argparse
import contextlib
import itertools
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import Parser, integer, script

if TYPE_CHECKING:
    from jaxcnn.training.prediction import Prediction


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="a directory of scripts/train.py")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="a picture's file")
    parser.add_argument("--top", type=integer(1), default=3, metavar="N", help="classes (3)")
    saliency_help = "draw what the model looked at, to DIR/NAME.png; no file is ever replaced"
    parser.add_argument("--saliency", type=Path, metavar="DIR", help=saliency_help)
    invert_help = "black for white: for dark digits on light paper, where the model learnt others"
    parser.add_argument("--invert", action="store_true", help=invert_help)
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    given = parser.parse_args()
    parser.require("jaxcnn", "jax", "optax", "PIL", *(["matplotlib"] if given.saliency else []))
    if not (given.run / "config.json").is_file():
        parser.error(f"argument RUN: {str(given.run)!r} is no run: it has no config.json")
    if given.saliency:
        try:
            os.makedirs(given.saliency, exist_ok=True)
        except OSError as error:
            parser.error(f"argument --saliency: {error}")
    return run(parser, given)


def run(parser: Parser, given: argparse.Namespace) -> int:
    """Loads the model, and prints a line for each picture; returns the exit code."""
    # Here and not above: jax takes seconds to import, and a bad argument is told at once.
    from jaxcnn.training.prediction import predict
    from jaxcnn.training.stopping import RequestError
    from jaxcnn.training.trained import load

    code = 0

    def tell(message: str) -> None:
        nonlocal code
        code = 1
        print(f"{parser.prog}: {message}", file=sys.stderr, flush=True)

    try:
        trained = load(given.run)
    except RequestError as error:
        parser.error(f"argument RUN: {error}")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names of files
    widths = max(len(str(path)) for path in given.images), max(map(len, trained.classes))
    maps = given.saliency is not None
    for found in predict(trained, given.images, invert=given.invert, maps=maps, tell=tell):
        order = (-found.probabilities).argsort(kind="stable")[: given.top]
        top = [(trained.classes[n], float(found.probabilities[n])) for n in order]
        drawn = None
        if maps:
            try:
                drawn = draw(found, top[0], given.saliency)
            except OSError as error:
                tell(str(error))
        line = as_json(found.path, top, drawn) if given.json else as_text(found.path, top, widths)
        print(line, flush=True)
    return code


Top = list[tuple[str, float]]  # classes and their probabilities, the likeliest first


def as_text(path: Path, top: Top, widths: tuple[int, int]) -> str:
    """A picture's line; the first columns have the widths given."""
    (name, likely), *others = top
    first = f"{path!s:{widths[0]}}  {name:{widths[1]}}  {100 * likely:5.1f} %"
    return "  ".join([first, *(f" {name} {100 * p:.1f} %" for name, p in others)])


def as_json(path: Path, top: Top, drawn: Path | None) -> str:
    """The same, and where the map is, as a JSON object."""
    classes = [{"class": name, "probability": likely} for name, likely in top]
    looked = {} if drawn is None else {"saliency": str(drawn)}
    return json.dumps({"image": str(path), **classes[0], "top": classes, **looked})


def draw(found: "Prediction", top: tuple[str, float], directory: Path) -> Path:
    """Draws what the model looked at, to a file that was not there, and returns its path."""
    from jaxcnn.training import pictures

    name, likely = top
    assert found.map is not None
    figure = pictures.saliency(found.image, found.map, f"{name}, {100 * likely:.1f} %")
    stem = found.path.stem
    for file in itertools.chain([stem], (f"{stem}-{n}" for n in itertools.count(2))):
        path = directory / f"{file}.png"
        with contextlib.suppress(FileExistsError), path.open("xb") as out:
            figure.savefig(out, format="png", dpi=150, bbox_inches="tight")
            break
    return path


if __name__ == "__main__":
    script(main)
