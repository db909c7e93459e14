"""How scripts end: scripts/arguments.py."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        ("lambda: 3", 3, ""),
        ("lambda: sys.exit(2)", 2, ""),
        ("lambda: print(end='some') or 0", 141, ""),
        ("lambda: print('much' * 100000)", 141, ""),
        ("lambda: signal.raise_signal(signal.SIGINT)", 130, "name: interrupted\n"),
    ],
)
def test_what_ends_a_script_is_its_exit_code(main: str, code: int, said: str) -> None:
    """Here, after its reader has gone."""
    program = f"import signal, sys; from arguments import script; script({main})"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.argv = ['a/name']; {program}"],
        cwd=SCRIPTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (code, said)
