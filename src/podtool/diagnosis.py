"""What a bug report needs to know of a machine: Python, tools, packages, weights, disk.

Each finding is (part, item, value, state) with state `ok`, `missing` (something will not work) or
`note`. Packages are looked up, not imported, but for torch, whose build matters.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    "typer rich numpy scipy soundfile soxr ffmpeg-python imageio-ffmpeg python-stretch "
    "onnxruntime onnx pocketsphinx pyworld setuptools demucs speechbrain mlx mlx-whisper "
    "pyannote.metrics meeteval jiwer safetensors espeakng-loader sounddevice pip"
).split()


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis."""

    part: str
    item: str
    value: str
    state: str = "ok"


def diagnose() -> Iterator[Finding]:
    """All findings, part by part."""
    yield from _machine()
    yield from _tools()
    yield from _torch()
    yield from _packages()
    yield from _store()


def _machine() -> Iterator[Finding]:
    from podtool import __version__

    yield Finding("machine", "podtool", __version__)
    tested = sys.version_info[:2] >= (3, 11)
    version = f"{platform.python_version()} ({platform.python_implementation()})"
    yield Finding("machine", "python", version, "ok" if tested else "missing")
    yield Finding("machine", "platform", platform.platform())
    yield Finding("machine", "cores", f"{_usable_cores()} usable of {os.cpu_count()}")
    yield Finding("machine", "memory", _memory())


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{total / 1e9:.1f} GB"


def _tools() -> Iterator[Finding]:
    from podtool import ffmpeg
    from podtool.errors import PodtoolError

    try:
        program = ffmpeg.executable()
        yield Finding("tools", "ffmpeg", f"{_first_line(program, '-version')} ({program})")
    except PodtoolError as error:
        yield Finding("tools", "ffmpeg", f"{error.message}; {error.hint}", "missing")
    compiler = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    if compiler:
        yield Finding("tools", "C++ compiler", _first_line(compiler, "--version"))
    else:
        yield Finding("tools", "C++ compiler", "none: needed to install pyworld", "note")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if header.exists():
        yield Finding("tools", "Python headers", str(header.parent))
    else:
        yield Finding("tools", "Python headers", "none: needed to install pyworld", "note")


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.stdout else "no answer"


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken build raises OSError, RuntimeError, ...
        yield Finding("torch", "torch", f"{type(error).__name__}: {error}", "missing")
        return
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.insert(0, f"cuda ({torch.cuda.get_device_name(0)})")
    if torch.backends.mps.is_available():
        devices.insert(0, "mps")
    yield Finding("torch", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield Finding("torch", "devices", ", ".join(devices))
    try:
        import torchaudio
    except ImportError:
        yield Finding("torch", "torchaudio", "not installed: speechbrain wants it", "note")
    except Exception as error:
        said = str(error).splitlines()[0]
        yield Finding(
            "torch", "torchaudio", f"does not load ({said}): podtool does without", "note"
        )
    else:
        yield Finding("torch", "torchaudio", str(torchaudio.__version__))


def _packages() -> Iterator[Finding]:
    optional = {"mlx", "mlx-whisper", "espeakng-loader", "sounddevice"}
    if sys.platform == "darwin" and platform.machine() == "arm64":
        optional -= {"mlx", "mlx-whisper"}
    for name in PACKAGES:
        try:
            yield Finding("packages", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            state = "note" if name in optional else "missing"
            yield Finding("packages", name, "not installed", state)
    yield _portaudio()


def _portaudio() -> Finding:
    """The sound card library of `live`; sounddevice is importable without it and fails later."""
    try:
        import sounddevice
    except ImportError:
        return Finding("packages", "PortAudio", "not looked for: no sounddevice", "note")
    except OSError as error:
        hint = "Debian, Ubuntu: apt install libportaudio2"
        return Finding("packages", "PortAudio", f"{error} ({hint})", "note")
    return Finding("packages", "PortAudio", str(sounddevice.get_portaudio_version()[1]))


def _store() -> Iterator[Finding]:
    from podtool.errors import PodtoolError
    from podtool.home import offline
    from podtool.store import ModelStore, human
    from podtool.store.fetch import free_bytes

    store = ModelStore()
    yield Finding("store", "home", str(store.home))
    yield Finding("store", "free disk", human(free_bytes(store.home)))
    yield Finding("store", "offline", "yes" if offline() else "no")
    try:
        embedded = set(store.table.groups().get("embedded", []))
        for name in store.table.models:
            state = store.state(name)
            wanted = name in embedded or state == "damaged"
            fault = "missing" if wanted and state != "ready" else "ok"
            hint = f" (podtool models pull {'embedded' if name in embedded else name})"
            yield Finding("store", name, state + ("" if state == "ready" else hint), fault)
    except PodtoolError as error:
        yield Finding("store", "models", error.message, "missing")
