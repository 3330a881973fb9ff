"""What `doctor` makes of backends that are installed and do not work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podtool import diagnosis
from podtool.diagnosis import Finding


def told(monkeypatch: pytest.MonkeyPatch, name: str, program: str) -> Finding:
    """What is found where the probe of `name` is that program."""
    monkeypatch.setitem(diagnosis._PROBES, name, program)
    monkeypatch.setitem(diagnosis._MODULES, name, "json")
    probes = {k: v for k, v in diagnosis._PROBES.items() if k in ("torch", name)}
    probes["torch"] = f"import json; print(json.dumps({TORCH!r}))"
    monkeypatch.setattr(diagnosis, "_PROBES", probes)
    return next(f for f in diagnosis._backends() if f.item == name)


@pytest.mark.parametrize(
    ("program", "value", "hint"),
    [
        ("raise ImportError('libmlx.so: cannot open shared object file')", "libmlx", "mlx[cpu]"),
        ("raise OSError('PortAudio library not found')", "PortAudio", "libportaudio2"),
        ("raise OSError('libcudart.so.13: cannot open')", "libcudart", "one index"),
        ("raise ImportError('x.so: undefined symbol: _ZN3c10')", "undefined", "one release"),
        ("raise ModuleNotFoundError(\"No module named 'pkg_resources'\")", "pkg_", "setuptools<81"),
        ("import ctypes; ctypes.string_at(0)", "crashes when it is loaded (SIGSEGV)", "again"),
        ("import time; time.sleep(60)", "hangs", "again"),
    ],
)
def test_a_backend_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, program: str, value: str, hint: str
) -> None:
    monkeypatch.setattr(diagnosis, "_PROBE_S", 2.0)
    found = told(monkeypatch, "pyworld", program)
    assert value in found.value and hint in found.hint and found.state == "missing"


def test_the_first_error_of_a_chain_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "try: raise OSError('libcudart.so.13: cannot open')\n"
        "except OSError as e: raise OSError('Could not load this library: x.so') from e"
    )
    found = told(monkeypatch, "torchaudio", program)
    assert "libcudart" in found.value and found.state == "note"


def test_what_prints_before_its_answer_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, "onnxruntime", "print('hello'); print('{\"version\": \"1.2\"}')")
    assert (found.value, found.state) == ("1.2", "ok")


TORCH: dict[str, Any] = {
    "version": "2.13", "threads": 2, "cuda": "13.0", "gpu": "", "mps": False, "error": ""
}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "value", "hint"),
    [
        ({"cuda": None}, "no CUDA", "index of your CUDA"),
        ({"error": "The NVIDIA driver on your system is too old"}, "too old", "Update the NVIDIA"),
        ({"gpu": "RTX", "error": "CUDA error: no kernel image"}, "kernel image", "generation"),
        ({"error": "CUDA error: out of memory"}, "out of memory", "nvidia-smi"),
        ({"error": "unknown error"}, "unknown error", "Restart"),
        ({"gpu": "RTX 4090"}, "13.0, works", ""),
    ],
)
def test_a_gpu_that_torch_cannot_use(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], value: str, hint: str
) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/dev/nvidiactl")
    found = {f.item: f for f in diagnosis._torch(TORCH | facts)}
    assert value in found["CUDA"].value and hint in found["CUDA"].hint
    works = facts == {"gpu": "RTX 4090"}
    assert found["devices"].value == ("cuda (RTX 4090), cpu" if works else "cpu")


def test_a_torch_that_is_not_there() -> None:
    [found] = list(diagnosis._torch("not installed"))
    assert found.state == "missing" and "pip install" in found.hint
