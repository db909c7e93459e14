"""Several devices do what one does; several hosts too, until one is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.training import devices

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
OPTIONS = ("--epochs", "2", "--batch-size", "256", "--seed", "3")


def test_four_and_eight_devices_train_as_one_does() -> None:
    """In a process of its own: the number of devices is set before JAX starts."""
    script = Path(__file__).with_name("eight_devices.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def test_one_device_needs_no_mesh() -> None:
    with devices.connected() as mesh:
        assert mesh is None
        assert devices.share(7, mesh) == slice(0, 7)
        assert devices.largest(3) == 3
        assert devices.is_first()


def start(out: Path, cache: Path, *options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, options)],
        cwd=out.parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(out: Path, cache: Path, *options: object) -> list[subprocess.Popen[str]]:
    """Two hosts of one run, on loopback."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    hosts = ("--coordinator", f"localhost:{port}", "--hosts", 2, "--devices", 1)
    return [start(out, cache, *options, *hosts, "--host", host) for host in (0, 1)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_two_hosts_train_as_one_does(tmp_path: Path, cache: Path) -> None:
    first, second = together(tmp_path / "two", cache, *OPTIONS, "--out", "two")
    outputs = [process.communicate() for process in (first, second)]
    assert first.returncode == second.returncode == 0, outputs
    summary = json.loads(outputs[0][0].splitlines()[-1])
    assert "epoch" not in outputs[1][0]  # the first speaks for both
    alone = start(tmp_path / "one", cache, *OPTIONS, "--out", "one")
    stdout, stderr = alone.communicate()
    assert alone.returncode == 0, stderr
    wanted = json.loads(stdout.splitlines()[-1])
    assert summary["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-5)
    found, wanted = (np.load(tmp_path / run / "parameters.npz") for run in ("two", "one"))
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-3, atol=1e-5)


def test_hosts_end_together_and_one_alone_goes_on(tmp_path: Path, cache: Path) -> None:
    """One of two is told to stop; and then, one is killed (tests/kills.py kills both, in turn)."""
    out = tmp_path / "run"

    def wait_for_a_checkpoint() -> None:
        before = set(out.glob("checkpoints/[0-9]*"))
        while set(out.glob("checkpoints/[0-9]*")) <= before:
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)

    options = ("--epochs", 40, *OPTIONS[2:], "--checkpoint-every", 4, "--out", "run")
    first, second = together(out, cache, *options)
    wait_for_a_checkpoint()
    second.send_signal(signal.SIGTERM)
    for process in (first, second):
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM
        assert stderr.splitlines()[-1].endswith(": --resume run goes on")
        assert "saved in run/checkpoints/" in stderr

    first, second = together(out, cache, "--resume", "run", "--checkpoint-every", 4)
    wait_for_a_checkpoint()
    second.send_signal(signal.SIGKILL)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode not in (0, None)
    assert stderr.splitlines()[-1].endswith("another host was lost: --resume run goes on")
    second.communicate()
    alone = start(out, cache, "--resume", "run")
    stdout, stderr = alone.communicate()
    assert alone.returncode == 0, stderr
    (line,) = [line for line in stdout.splitlines() if line.startswith("going on")]
    assert 4 <= int(line.split()[4]) < 240
    assert json.loads(stdout.splitlines()[-1])["epochs"] == 40
