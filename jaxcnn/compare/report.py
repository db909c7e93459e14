"""What a comparison found: rows to print, to read by a program, and to raise."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

# rich is imported where something is printed, so that the library itself does not load it.
FIGURES = ("absolute", "relative", "allowed", "ulp")
STYLES = {"ok": "green", "WRONG": "bold red", "differs": "yellow", "cannot tell": "yellow"}


@dataclass(frozen=True)
class Row:
    """One thing that was checked.

    Attributes:
        check: `value`, `gradient`, `contract`, `edges`, `differences` or `cost`.
        name: what was looked at: an argument, a transformation, a kind of input.
        verdict: `ok`; `WRONG`; `differs`, from autodiff without being wrong, as at a kink;
            `cannot tell`; or `note`, a figure without a judgement.
        says: what was found, in words.
        figures: by name: the largest `absolute` and `relative` error (to the largest entry) and
            what is `allowed` of the latter, and `ulp`, in units in the last place; or a `ratio`.
    """

    check: str
    name: str
    verdict: str
    says: str = ""
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The rows of a comparison.

    Attributes:
        title: what was compared.
        rows: what was checked, in order.
    """

    title: str
    rows: list[Row]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def findings(self) -> list[str]:
        """What is wrong, a sentence each."""
        return [sentence(row) for row in self.rows if row.verdict == "WRONG"]

    def raise_if_wrong(self) -> None:
        """Raises an `AssertionError` that says what is wrong, if anything is."""
        if not self.ok:
            raise AssertionError("\n".join([f"{self.title}: wrong", *self.findings]))

    def to_dict(self) -> dict[str, Any]:
        """`ok`, `title`, `findings` and `rows`, ready for JSON: NaN and infinities as strings."""
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            row["figures"] = {name: _finite(value) for name, value in row["figures"].items()}
        return {"ok": self.ok, "title": self.title, "findings": self.findings, "rows": rows}

    def to_json(self) -> str:
        """`to_dict` as one JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        yield table(self)
        yield Text("all is right", "green") if self.ok else Text("\n".join(self.findings), "red")

    def __str__(self) -> str:
        from rich.console import Console

        # As wide as it needs: a cut figure is of no use, and a pipe has no width.
        console = Console(width=160, color_system=None, markup=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def sentence(row: Row) -> str:
    """`gradient of kernel: spatially flipped along axes 0 and 1`, say."""
    what = f"gradient of {row.name}" if row.check == "gradient" else f"{row.check}, {row.name}"
    return f"{what}: {row.says}"


def table(report: Report) -> Any:
    """A `rich.table.Table` with a line for each row."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=report.title, title_justify="left", title_style="bold", box=None)
    for heading in ("check", "of", "verdict"):
        grid.add_column(heading, overflow="fold")
    for heading in FIGURES:
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("what was found", overflow="fold")
    for row in report.rows:
        figures = [_short(row.figures.get(name)) for name in FIGURES]
        verdict = Text(row.verdict, STYLES.get(row.verdict, ""))
        grid.add_row(row.check, row.name, verdict, *figures, row.says)
    return grid


def _short(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def _finite(value: float) -> float | str:
    return str(np.float64(value)) if not math.isfinite(value) else value
