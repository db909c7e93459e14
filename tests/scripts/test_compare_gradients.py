import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_gradients.py"

LAYERS = """
import jax
import jax.numpy as jnp


@jax.custom_vjp
def scaled(x, scale):
    return x * scale


def forward(x, scale):
    return x * scale, (x, scale)


def backward(kept, dy):
    x, scale = kept
    return scale * dy, (x * dy).sum(0) {wrong}


scaled.defvjp(forward, backward)


class Layers:
    scaled = staticmethod(scaled)


def of_floats(x):
    if x.ndim != 1:
        raise ValueError("one axis, please\\nand no more")
    return jnp.sin(x)
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the script in this process; returns its exit code, standard output and error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return exit_.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def layers(tmp_path, monkeypatch):
    """Writes a module with a rule, right or wrong, into the directory that the script is run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written = []

    def layers(wrong=""):
        name = f"layers_of_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(LAYERS.format(wrong=wrong))
        written.append(name)
        return name

    yield layers
    for name in written:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["--model", "lenet"], "argument --model: invalid choice: 'lenet'"),
        (["--batch-size", "0"], "argument --batch-size: must be an integer from 1 to 1000"),
        (["--seed", "x"], "argument --seed: must be an integer from 0 to 4294967295, not 'x'"),
        (["--batch", "3"], "unrecognized arguments: --batch 3"),
        (["--shapes", "2y3"], "argument --shapes: must be shapes such as 2x3,3,scalar, not '2y3'"),
        (["--shapes", "2"], "arguments --function and --shapes: either needs the other"),
        (["--function", "jax.numpy:sin"], "--function and --shapes: either needs the other"),
        (
            ["--function", "jax.numpy:sin", "--shapes", "2", "--model", "vgg"],
            "argument --function: not allowed with --model",
        ),
        (["--function", "nowhere:f", "--shapes", "2"], "argument --function: No module named 'now"),
        (["--function", "jax.numpy:sine", "--shapes", "2"], "has no attribute 'sine'"),
        (["--function", "jax.numpy", "--shapes", "2"], "must be package.module:name, not 'jax.num"),
        (["--function", "math:pi", "--shapes", "2"], "`f` must be a function, got 3.14159"),
        (["--function", "jax.numpy:argmax", "--shapes", "2"], "no output of `f` is a floating"),
    ],
)
def test_a_bad_argument_is_one_line(run, arguments, told):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_shapes_that_the_function_refuses_are_one_line(run, layers):
    code, out, err = run("--function", f"{layers()}:of_floats", "--shapes", "2x3")
    assert (code, out) == (2, "")
    assert err.endswith("one axis, please\n")
    assert err.count("\n") == 1


def test_a_bad_argument_is_told_before_jax_is_imported():
    command = [sys.executable, "-X", "importtime", SCRIPT, "--seed", "-1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "| jax" not in result.stderr


def test_a_right_rule_of_a_function(run, layers):
    name = f"{layers()}:Layers.scaled"
    code, out, err = run("--function", name, "--shapes", "3x2,2", "--dtype", "bfloat16")
    assert code == 0
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == "scaled: x 3x2, scale 2, bfloat16"
    assert lines[-1] == "all is right"
    assert max(map(len, lines)) <= 160
    assert err.strip() == ""


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_wrong_rule_is_named_last(run, layers, option):
    name = f"{layers('* 2')}:scaled"
    code, out, err = run("--function", name, "--shapes", "3x2,2", "--dtype", "float64", *option)
    assert code == 1
    finding = "gradient of scale: off by a constant factor 2"
    last = (err if option else out).splitlines()
    assert any(line.startswith(finding) for line in last[-9:])
    assert not any(line.startswith("gradient of x:") for line in last)
    if option:
        read = json.loads(out)
        assert (read["ok"], read["dtype"], len(read["reports"])) == (False, "float64", 1)
        assert read["reports"][0]["findings"] == last


def test_lenet5_is_right_and_the_report_is_json(run, monkeypatch):
    # Each of its rules has tests of these; of the whole they take a minute to compile.
    for later in ("contract_rows", "edge_rows"):
        monkeypatch.setattr(f"jaxcnn.compare.gradients.{later}", lambda *args: ())
    code, out, err = run("--batch-size", "2", "--seed", "3", "--json")
    read = json.loads(out)
    assert [report["findings"] for report in read["reports"]] == [[], []]
    assert (code, read["ok"], read["dtype"], err.strip()) == (0, True, "float32", "")
    rules, whole = read["reports"]
    assert (rules["title"], whole["title"]) == (
        "rules of lenet5, 2 digits",
        "lenet5, 2 digits: 10 arrays, float32",
    )
    numbers = {row["name"].split()[0] for row in rules["rows"]}
    assert numbers == {str(number) for number in range(1, len(numbers) + 1)}
    names = {row["name"] for row in whole["rows"] if row["check"] == "gradient"}
    assert {"params/conv1/kernel", "params/logits/bias"} <= names
    assert len(names) == 10
    figures = [row["figures"] for row in whole["rows"] if row["check"] == "gradient"]
    assert all(found["relative"] <= found["allowed"] < 1e-2 for found in figures)
    assert np.isfinite([found["ulp"] for found in figures]).all()
