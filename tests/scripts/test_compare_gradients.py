import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcnn import compare
from jaxcnn.models import lenet5

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_gradients.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the script in this process; returns its exit code, standard output and error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return exit_.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dtype", "float16"], "argument --dtype: invalid choice: 'float16'"),
        (["--batch-size", "0"], "argument --batch-size: must be an integer from 1 to 1000"),
        (["--seed", "x"], "argument --seed: must be an integer from 0 to 4294967295, not 'x'"),
        (["--batch", "3"], "unrecognized arguments: --batch 3"),
    ],
)
def test_a_bad_argument_is_one_line(run, arguments, told):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_bad_argument_is_told_before_jax_is_imported():
    command = [sys.executable, "-X", "importtime", SCRIPT, "--seed", "-1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "| jax" not in result.stderr


def test_lenet5_agrees_and_the_report_is_json(run):
    code, out, err = run("--dtype", "float64", "--batch-size", "2", "--seed", "3", "--json")
    report = json.loads(out)
    assert [row["name"] for row in report["rows"] if not row["ok"]] == []
    assert (code, report["ok"], report["dtype"]) == (0, True, "float64")
    names = [row["name"] for row in report["rows"]]
    assert len(names) == len(set(names)) == 19 + 10
    assert names[:3] == [f"1 conv_relu_max_pool: {name}" for name in ("x", "kernel", "bias")]
    assert {"3 flatten: x", "9 loss: logits", "conv1/kernel", "logits/bias"} <= set(names)
    assert err == "all 29 gradients agree\n"


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_wrong_rows_are_named_last(run, monkeypatch, option):
    rows = [
        compare.Row("1 conv: x", (2,), 0.0, 0.0, 1e-6, 1e-9, True),
        compare.Row("2 relu: x", (2,), 1.0, 1.0, 1e-6, 1e-9, False),
        compare.Row("conv1/kernel", (2,), 1.0, 1.0, 1e-6, None, False),
    ]
    monkeypatch.setattr(compare, "compare_model", lambda *args, **kwargs: rows)
    monkeypatch.setattr(lenet5, "init", lambda key: ({}, {}))
    code, out, err = run("--batch-size", "1", *option)
    assert code == 1
    last = (err if option else out).splitlines()[-1]
    assert last == "WRONG: 2 relu: x, conv1/kernel"
    assert json.loads(out)["ok"] is False if option else "kink" in out
