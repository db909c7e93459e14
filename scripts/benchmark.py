"""How fast are the hand-derived gradients? Races them against autodiff's and PyTorch's.

    python scripts/benchmark.py layers
    python scripts/benchmark.py layers --only "vgg 3x3" --rounds 9
    python scripts/benchmark.py steps --json steps.json
    python scripts/benchmark.py training
    python scripts/benchmark.py choices
    python scripts/benchmark.py checkers --only softmax

`layers`: the forward pass of each layer, and its backward pass from what the forward pass kept;
and its error, next to autodiff's, against autodiff in float64.
`steps`: whole steps of training, with the memory and the compile time of the program. `scaling`:
forward and backward of VGG's second convolution and its pool, by batch and by image size, against
autodiff. `training`: whole epochs of train.py's loop, of images in memory and of PNG files, against
as many bare steps; and how long train.py takes to its first step. `choices`: what
`jaxcnn/_cpu/choice.py` takes for each sum of a convolution, against XLA's convolution and the other
evaluations, with the table that is in its docstring.

`checkers` is no race: how many planted bugs and how many correct rules `compare_gradients` rejects,
and how many JAX's, chex's and PyTorch's checkers, where they are installed, for the arguments of
`--rounds` seeds. A bug is caught if every seed rejects it; a correct rule is rejected if one does.
All of it takes two hours.

The contenders run in turn, and a speed-up is the median of the rounds' ratios: how many times as
long the rival takes, so that above 1 is faster. "control" is jaxcnn against itself, and should be
within 5 % of 1: where it is not, the machine was too busy to tell. Before anything is timed the
results are compared. The last lines name every case where a rival is faster.
Exit codes: 0, all was raced; 1, results differ, or `compare_gradients` misses a bug or rejects a
correct rule; 2, a bad argument or a missing package.
"""

import json
import math
import os
import statistics
import sys
from argparse import Namespace
from pathlib import Path

from arguments import Parser, integer, script

WHAT = ["layers", "steps", "scaling", "training", "choices", "checkers"]
TOLERANCE = 1e-4  # of the largest entry: sums of up to 10^5 float32 products, in any order
ROUNDING = 2**-24  # of one float32: autodiff's error is taken to be that at least


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds it")
    parser.add_argument(
        "--rounds", type=integer(1), metavar="N", help="7 unless given; of checkers, seeds: 3"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--no-torch", action="store_true", help="without PyTorch")
    parser.add_argument("--compile", action="store_true", help="PyTorch also by torch.compile")
    arguments = parser.parse_args()
    parser.require("jaxcnn", "jax", "optax", "rich")
    with_torch = arguments.what in ("layers", "steps") and not arguments.no_torch
    if with_torch:
        parser.require("torch")
    if arguments.json and not os.access(arguments.json.parent, os.W_OK):
        parser.error(f"argument --json: cannot write to {str(arguments.json.parent)!r}")

    if arguments.what == "checkers":
        return compare_checkers(parser, arguments)

    # Here and not above: jax takes seconds to import, and a bad argument is told at once.
    from benchmarks import choices, races

    torch = ["eager", "compiled"][: 1 + arguments.compile] if with_torch else []
    records = []
    for record in races.run(arguments.what, arguments.only, arguments.rounds or 7, torch):
        records.append(record)
        print(line(record), flush=True)
    if not records:
        parser.error(f"argument --only: no case of {arguments.what} has {arguments.only!r}")
    print("\n".join(summary(records)))
    if arguments.what == "choices":
        print("\n".join(choices.table(records)))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    different = [record["case"] for record in records if record.get("error", 0) > TOLERANCE]
    if different:
        print(f"{parser.prog}: results differ: {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


def compare_checkers(parser: Parser, arguments: Namespace) -> int:
    """Prints what the gradient checkers make of right and wrong rules."""
    from benchmarks import checkers

    records = []
    for record in checkers.run(arguments.only, arguments.rounds or 3, not arguments.no_torch):
        records.append(record)
        print(checkers.line(record), flush=True)
    if not records:
        parser.error(f"argument --only: no case of checkers has {arguments.only!r}")
    print("\n".join(checkers.summary(records)))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    return 1 if checkers.mistakes(records) else 0


def line(record: dict) -> str:
    """One case: how many times as long each rival takes."""
    speed = "  ".join(f"{rival} {ratio:6.2f}x" for rival, ratio in record["speedup"].items())
    text = f"{record['case']:38} {record['milliseconds']:9.2f} ms   {speed}"
    if "evaluation" in record:
        text += f"   {record['evaluation']}"
    if "memory" in record:
        text += f"   memory {record['memory']:.2f}x  compile {record['compile']:.2f}x"
        text += f"  parameters after ten steps {record['difference']:.0e}"
    return text


def summary(records: list[dict]) -> list[str]:
    """Geometric means, where a rival is faster, and the error."""
    lines = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        chosen = [record for record in records if record["kind"] == kind]
        rivals = dict.fromkeys(rival for record in chosen for rival in record["speedup"])
        for rival in rivals:
            if rival == "control":
                continue
            against = [record for record in chosen if rival in record["speedup"]]
            ratios = [record["speedup"][rival] for record in against]
            mean = math.exp(statistics.fmean(map(math.log, ratios)))
            lines.append(
                f"{kind} against {rival}: {mean:.2f}x in the geometric mean of {len(ratios)}, "
                f"{min(ratios):.2f}x to {max(ratios):.2f}x"
            )
            slower = [record for record in against if record["speedup"][rival] < 0.95]
            lines += [
                f"  slower than {rival}: {record['case']}, {record['speedup'][rival]:.2f}x"
                for record in slower
            ]
    return lines + accuracy([record for record in records if "accuracy" in record])


def accuracy(records: list[dict]) -> list[str]:
    """The largest error against float64, and the largest next to autodiff's."""
    if not records:
        return []

    def times(record: dict) -> float:
        return record["accuracy"] / max(record["autodiff_accuracy"], ROUNDING)

    worst = max(records, key=times)
    return [
        f"error against float64: at most {max(record['accuracy'] for record in records):.1e}; "
        f"at most {times(worst):.1f} times autodiff's, at {worst['case']}"
    ]


if __name__ == "__main__":
    script(main)
