"""How fast are the hand-derived gradients? Races them against autodiff's and PyTorch's.

    python scripts/benchmark.py layers
    python scripts/benchmark.py layers --only "vgg 3x3" --rounds 9
    python scripts/benchmark.py steps --json steps.json

`layers`: the forward pass of each layer, and its backward pass from what the forward pass kept.
`steps`: whole steps of training, with the memory and the compile time of the program. `scaling`:
forward and backward of VGG's second convolution and its pool, by batch and by image size, against
autodiff.

The contenders run in turn, and a speed-up is the median of the rounds' ratios: how many times as
long the rival takes, so that above 1 is faster. "control" is jaxcnn against itself, and should be
within 5 % of 1: where it is not, the machine was too busy to tell. Before anything is timed the
results are compared. The last lines name every case where a rival is faster.
Exit codes: 0, all was raced; 1, results differ; 2, a bad argument or a missing package.
"""

import json
import math
import os
import statistics
import sys
from pathlib import Path

from arguments import Parser, integer

TOLERANCE = 1e-4  # of the largest entry: sums of up to 10^5 float32 products, in any order


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("what", choices=["layers", "steps", "scaling"])
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds it")
    parser.add_argument("--rounds", type=integer(1), default=7, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--no-torch", action="store_true", help="without PyTorch")
    parser.add_argument("--compile", action="store_true", help="PyTorch also by torch.compile")
    arguments = parser.parse_args()
    parser.require("jaxcnn", "jax", "optax", "rich")
    if not arguments.no_torch:
        parser.require("torch")
    if arguments.json and not os.access(arguments.json.parent, os.W_OK):
        parser.error(f"argument --json: cannot write to {str(arguments.json.parent)!r}")

    # Here and not above: jax takes seconds to import, and a bad argument is told at once.
    from benchmarks import races

    torch = [] if arguments.no_torch else ["eager", "compiled"][: 1 + arguments.compile]
    records = []
    for record in races.run(arguments.what, arguments.only, arguments.rounds, torch):
        records.append(record)
        print(line(record), flush=True)
    if not records:
        parser.error(f"argument --only: no case of {arguments.what} has {arguments.only!r}")
    print("\n".join(summary(records)))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    different = [record["case"] for record in records if record.get("error", 0) > TOLERANCE]
    if different:
        print(f"{parser.prog}: results differ: {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


def line(record: dict) -> str:
    """One case: how many times as long each rival takes."""
    speed = "  ".join(f"{rival} {ratio:6.2f}x" for rival, ratio in record["speedup"].items())
    text = f"{record['case']:38} {record['milliseconds']:9.2f} ms   {speed}"
    if "memory" in record:
        text += f"   memory {record['memory']:.2f}x  compile {record['compile']:.2f}x"
        text += f"  parameters after ten steps {record['difference']:.0e}"
    return text


def summary(records: list[dict]) -> list[str]:
    """Geometric means, and where a rival is faster."""
    lines = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        chosen = [record for record in records if record["kind"] == kind]
        rivals = [rival for rival in chosen[0]["speedup"] if rival != "control"]
        for rival in rivals:
            ratios = [record["speedup"][rival] for record in chosen]
            mean = math.exp(statistics.fmean(map(math.log, ratios)))
            lines.append(
                f"{kind} against {rival}: {mean:.2f}x in the geometric mean of {len(ratios)}, "
                f"{min(ratios):.2f}x to {max(ratios):.2f}x"
            )
            slower = [record for record in chosen if record["speedup"][rival] < 0.95]
            lines += [
                f"  slower than {rival}: {record['case']}, {record['speedup'][rival]:.2f}x"
                for record in slower
            ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
