import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from jaxcnn.compare import Report, Row

FIGURES = {"absolute": 1.25e-7, "relative": 3e-8, "allowed": 1e-6, "ulp": 2.0}
FINE = [
    Row("value", "output", "ok", "", FIGURES),
    Row("gradient", "x", "differs", "from autodiff at a kink, where either is right"),
    Row("edges", "large", "note", "the function is not finite there"),
    Row("differences", "x", "cannot tell", "a kink along each direction"),
    Row("cost", "forward", "note", "alike", {"ratio": 1.0}),
]
BAD = [
    Row("gradient", "kernel", "WRONG", "the sign is wrong", {"relative": 2.0, "ulp": float("nan")}),
    Row("contract", "same twice", "WRONG", "another result for the same arguments"),
]
RIGHT, WRONG = Report("conv: x 2x3, float32", FINE), Report("conv: x 2x3, float32", FINE + BAD)
FINDINGS = [
    "gradient of kernel: the sign is wrong",
    "contract, same twice: another result for the same arguments",
]


def test_what_is_wrong_is_found_and_nothing_else():
    assert (RIGHT.ok, RIGHT.findings) == (True, [])
    assert (WRONG.ok, WRONG.findings) == (False, FINDINGS)
    assert Report("nothing", []).ok


def test_raising():
    RIGHT.raise_if_wrong()
    with pytest.raises(AssertionError) as raised:
        WRONG.raise_if_wrong()
    assert str(raised.value).splitlines() == ["conv: x 2x3, float32: wrong", *FINDINGS]


@pytest.mark.parametrize("report", [RIGHT, WRONG])
def test_as_json(report):
    read = json.loads(report.to_json())
    assert read == report.to_dict()
    assert (read["ok"], read["title"], read["findings"]) == (
        report.ok,
        report.title,
        report.findings,
    )
    assert [row["name"] for row in read["rows"]] == [row.name for row in report.rows]
    assert read["rows"][0] == {
        **{"check": "value", "name": "output", "verdict": "ok", "says": ""},
        "figures": FIGURES,
    }


def test_what_json_has_no_number_for_is_a_string():
    figures = {"a": np.inf, "b": float("nan"), "c": -np.inf, "d": 1.0}
    row = Report("t", [Row("cost", "x", "note", "", figures)]).to_dict()["rows"][0]
    assert row["figures"] == {"a": "inf", "b": "nan", "c": "-inf", "d": 1.0}


def test_as_text_a_line_for_each_row_and_what_is_wrong_last():
    lines = str(WRONG).splitlines()
    assert lines[0] == "conv: x 2x3, float32"
    assert lines[1].startswith(" check")
    assert lines[1].split()[3:7] == ["absolute", "relative", "allowed", "ulp"]
    assert lines[2].split() == ["value", "output", "ok", "1.2e-07", "3.0e-08", "1.0e-06", "2.0e+00"]
    assert len(lines) == 2 + len(WRONG.rows) + 2
    assert lines[-2:] == FINDINGS
    assert str(RIGHT).splitlines()[-1] == "all is right"
    assert max(map(len, lines)) <= 160


def test_brackets_are_no_markup():
    report = Report("f[0]", [Row("gradient", "x[bold]", "WRONG", "7 at [0, 1], where 1 is right")])
    assert "gradient of x[bold]: 7 at [0, 1], where 1 is right" in str(report)
    assert str(report).startswith("f[0]")


def test_on_a_terminal_it_has_colours():
    console = Console(force_terminal=True, color_system="standard", width=120)
    with console.capture() as captured:
        console.print(WRONG)
    assert "\x1b[1;31mWRONG" in captured.get()
    assert "\x1b[" not in str(WRONG)


def test_a_row_of_zero_says_zero():
    row = Row("gradient", "x", "ok", "", dict.fromkeys(FIGURES, 0.0))
    assert str(Report("t", [row])).splitlines()[2].split()[3:] == ["0"] * 4


def test_rich_is_not_loaded_before_something_is_printed():
    code = "import sys, jaxcnn.compare; assert 'rich' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
