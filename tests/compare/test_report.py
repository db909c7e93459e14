import io
import json
import math

from rich.console import Console

from jaxcnn.compare.report import table, to_json
from jaxcnn.compare.rows import Row

ROWS = [
    Row("10 dense: kernel", (400, 120), 1e-3, 2e-7, 4e-6, 3e-9, True),
    Row("3 max_pool: x", (16, 28, 28, 16), math.nan, math.nan, 4e-6, None, False),
]


def test_the_table_is_plain_text_with_a_line_for_each_row():
    out = io.StringIO()
    Console(file=out, width=100).print(table(ROWS, "title"))
    lines = out.getvalue().splitlines()
    assert max(map(len, (line.rstrip() for line in lines))) <= 90
    assert "\x1b" not in out.getvalue()
    assert " ".join(lines[-2].split()) == (
        "10 dense: kernel 400x120 1.0e-03 2.0e-07 4.0e-06 3.0e-09 ok"
    )
    assert lines[-1].split()[-2:] == ["kink", "WRONG"]


def test_json_is_json_even_with_nan():
    report = json.loads(to_json(ROWS, "float32"), parse_constant=lambda name: 1 / 0)
    assert (report["ok"], report["dtype"]) == (False, "float32")
    assert report["rows"][0]["shape"] == [400, 120]
    assert (report["rows"][1]["absolute"], report["rows"][1]["difference"]) == ("nan", None)
