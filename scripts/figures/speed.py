"""Draws the figures of `scripts/benchmark.py` as README's picture.

    python scripts/benchmark.py layers --json layers.json
    python scripts/figures/speed.py layers.json scripts/figures/speed.png

A row for each layer, forward and backward: how many times as long each rival takes.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

MARKS = {"autodiff": ("o", "jax.grad"), "PyTorch eager": ("x", "PyTorch")}


def panel(axes: Axes, records: list[dict], kind: str, order: list[str]) -> None:
    """One kind of pass: a row for each layer, a mark for each rival."""
    speedups = {
        record["case"].removesuffix(f" {kind}"): record["speedup"]
        for record in records
        if record["kind"] == kind
    }
    axes.axvspan(1e-3, 1, color="0.94", zorder=0)
    axes.axvline(1, color="0.5", linewidth=1)
    for rival, (marker, label) in MARKS.items():
        rows = [row for row, case in enumerate(order) if rival in speedups[case]]
        ratios = [speedups[order[row]][rival] for row in rows]
        axes.scatter(ratios, rows, s=22, marker=marker, label=label)
    axes.set_xscale("log")
    axes.set_xlim(0.05, 400)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
    axes.set_title(f"{kind}: how many times as long as jaxcnn\n(grey: the rival is faster)")
    axes.grid(axis="x", color="0.85")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, help="from `benchmark.py layers --json`")
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    records = json.loads(arguments.records.read_text())
    backward = [record for record in records if record["kind"] == "backward"]
    backward.sort(key=lambda record: record["speedup"]["autodiff"])
    order = [record["case"].removesuffix(" backward") for record in backward]
    figure, both = plt.subplots(1, 2, figsize=(11, 0.19 * len(order) + 1), sharey=True)
    for axes, kind in zip(both, ("backward", "forward"), strict=True):
        panel(axes, records, kind, order)
    both[0].set_yticks(range(len(order)), order, fontsize=7)
    both[0].set_ylim(-1, len(order))
    both[0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
