"""What only a real process shows: pipes that close, Ctrl-C, full disks, the weight of --help."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from podtool.audio import Audio, write_audio

PODTOOL = [sys.executable, "-m", "podtool"]


def run(*args: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [*PODTOOL, *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of quiet noise: long enough to be interrupted."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    samples = np.random.default_rng(0).normal(0, 0.01, (1, 600 * 16000)).astype(np.float32)
    write_audio(path, Audio(samples, 16000))
    return path


def test_help_is_light() -> None:
    """--help loads neither numpy nor torch, and is there at once."""
    code = (
        "import sys\nsys.argv = ['podtool', '--help']\n"
        "from importlib import import_module\n"
        "try:\n    import_module('podtool.commands').main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'torch', 'scipy', 'soundfile', 'onnxruntime', 'rich.progress'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        best = min(best, time.perf_counter() - began)
    assert b"HEAVY []" in done.stdout
    assert best < 2.0  # half a second on a quiet machine


@pytest.mark.parametrize(
    "command",
    ["separate", "diarize", "transcribe", "clone", "synthesize", "reconstruct", "replace"]
    + ["export", "import", "evaluate", "check", "doctor"],
)
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0 and len(done.stdout) > 300


def test_usage_error_is_2() -> None:
    done = run("diarize", "--no-such-option")
    assert (done.returncode, done.stdout) == (2, b"")


def test_json_errors() -> None:
    done = run("--json-errors", "diarize", "/nowhere/x.wav")
    assert done.returncode == 3
    error = json.loads(done.stderr)
    assert error["error"] == "bad-input" and "/nowhere/x.wav" in error["message"]


@pytest.mark.models
def test_a_file_from_stdin_keeps_its_audio(tone: Path) -> None:
    done = run("diarize", "-", stdin=tone.open("rb"))
    assert done.returncode == 0, done.stderr
    recording = json.loads(done.stdout.splitlines()[0])
    assert Path(recording["path"]).read_bytes() == tone.read_bytes()


def test_a_reader_that_leaves(tone: Path) -> None:
    """`podtool ... | head -0`: the writer ends quietly with 141."""
    with subprocess.Popen(
        [*PODTOOL, "diarize", str(tone)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        stderr = process.stderr.read().decode()
        assert process.wait() == 141
    assert "Traceback" not in stderr and "BrokenPipe" not in stderr


def test_a_full_disk(tone: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PODTOOL, "diarize", str(tone)], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 8, done.stderr
    assert b"output" in done.stderr and b"Traceback" not in done.stderr


def test_a_file_size_limit(tone: Path, tmp_path: Path) -> None:
    """Writing beyond what the disk takes leaves no file under the final name."""
    limited = (
        f"ulimit -f 10; exec {sys.executable} -m podtool separate {tone} --out-dir {tmp_path}/o"
    )
    done = subprocess.run(["bash", "-c", limited], capture_output=True, check=False)
    assert done.returncode in (8, -signal.SIGXFSZ), done.stderr
    left = list((tmp_path / "o").glob("*.wav")) if (tmp_path / "o").exists() else []
    assert left == []


def _wait_until_busy(process: subprocess.Popen[bytes]) -> None:
    """Until the command itself runs: before that, Python is what is interrupted."""
    maps = Path(f"/proc/{process.pid}/maps")
    for _ in range(300):
        if not maps.exists():
            time.sleep(3)
            return
        if "sndfile" in maps.read_text():
            return
        time.sleep(0.1)


@pytest.mark.parametrize("delay", [0.0, 0.5, 2.0])
def test_ctrl_c(long: Path, delay: float) -> None:
    """An interrupt at any moment ends with 130, without a traceback."""
    with subprocess.Popen(
        [*PODTOOL, "diarize", str(long)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        _wait_until_busy(process)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert b"Traceback" not in stderr
