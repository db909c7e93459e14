"""optax's own tests of the losses that jaxcnn has, which come in its wheel, pass with jaxcnn's."""

import json
import subprocess
import sys
from pathlib import Path

# Of functions that jaxcnn has not.
LEFT_OUT = {
    "AliasTest",
    "CTCTest",
    "CosineDistanceTest",
    "GeneralizedKLDivergenceTest",
    "HingeTest",
    "KLDivergenceTest",
    "KLDivergenceWithLogTargetsTest",
    "LogCoshTest",
    "PerceptronTest",
    "SparsemaxTest",
}


def test_optax_s_own_tests_pass():
    script = Path(__file__).with_name("optax_shipped_tests.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    assert report["failures"] == {}
    assert report["run"] >= 80
    assert len(report["called"]) == 7
    assert set(report["left out"]) <= LEFT_OUT  # or else what is new in optax would go unnoticed
    assert report["bugs not found"] == []
