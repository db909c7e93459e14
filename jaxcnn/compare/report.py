"""The rows of a comparison, as a table for a reader and as JSON for a program."""

import json
import math
from dataclasses import asdict

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxcnn.compare.rows import Row

VERDICTS = {True: Text("ok", style="green"), False: Text("WRONG", style="bold red")}


def table(rows: list[Row], title: str) -> Table:
    """A line for each row; under 90 columns wide when the names are those of LeNet-5."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    grid.add_column("\ngradient", overflow="fold")
    grid.add_column("\nshape", overflow="fold")
    for heading in ("autodiff:\nabsolute", "\nrelative", "\nallowed", "central\ndifferences"):
        grid.add_column(heading, justify="right")
    grid.add_column("\nverdict")
    for row in rows:
        grid.add_row(
            row.name,
            "x".join(map(str, row.shape)),
            *(f"{error:.1e}" for error in (row.absolute, row.relative, row.allowed)),
            "kink" if row.difference is None else f"{row.difference:.1e}",
            VERDICTS[row.ok],
        )
    return grid


def to_json(rows: list[Row], dtype: str) -> str:
    """One object: `ok`, `dtype` and `rows`, with the fields of `Row`.

    A `difference` is null where each straddles a kink; NaN and infinity are the strings `"nan"`
    and `"inf"`, for JSON has no numbers for them.

    >>> to_json([Row("1 relu: x", (2, 3), 0.0, 0.0, 1e-15, None, True)], "float64")[:50]
    '{"ok": true, "dtype": "float64", "rows": [{"name":'
    """
    fields = [{key: _finite(value) for key, value in asdict(row).items()} for row in rows]
    report = {"ok": all(row.ok for row in rows), "dtype": dtype, "rows": fields}
    return json.dumps(report, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(np.float64(value))
    return value
