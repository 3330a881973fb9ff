"""What a bug report needs to know of a machine: Python, tools, packages, weights, disk.

Each finding is (part, item, value, state, hint) with state `ok`, `missing` (something will not
work) or `note`; the hint is what to do about it. Packages are looked up, not imported; those that
are known to be installed and yet not load are tried in processes of their own, since a broken build
may crash or hang.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    "typer rich numpy scipy soundfile soxr ffmpeg-python imageio-ffmpeg python-stretch "
    "onnx pocketsphinx setuptools demucs speechbrain mlx-whisper "
    "pyannote.metrics meeteval jiwer safetensors espeakng-loader sounddevice pip"
).split()


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis."""

    part: str
    item: str
    value: str
    state: str = "ok"
    hint: str = ""


def diagnose() -> Iterator[Finding]:
    """All findings, part by part."""
    yield from _machine()
    yield from _tools()
    yield from _backends()
    yield from _packages()
    yield from _engines()
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
        said = _first_line(program, "-version")
        works = said.startswith("ffmpeg version")
        hint = "" if works else "Install another one: apt install ffmpeg, or brew install ffmpeg."
        yield Finding("tools", "ffmpeg", f"{said} ({program})", "ok" if works else "missing", hint)
    except PodtoolError as error:
        yield Finding("tools", "ffmpeg", error.message, "missing", error.hint or "")
    compiler = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    if compiler:
        yield Finding("tools", "C++ compiler", _first_line(compiler, "--version"))
    else:
        hint = "apt install g++, or xcode-select --install"
        yield Finding("tools", "C++ compiler", "none: needed to install pyworld", "note", hint)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if header.exists():
        yield Finding("tools", "Python headers", str(header.parent))
    else:
        hint = "apt install python3-dev"
        yield Finding("tools", "Python headers", "none: needed to install pyworld", "note", hint)


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "no answer"


# Programs that load a backend, use it once, and print what they found as JSON.
_PROBES = {
    "torch": """
import json, torch
found = {"version": torch.__version__, "threads": torch.get_num_threads(), "error": ""}
found |= {"cuda": torch.version.cuda, "gpu": "", "mps": torch.backends.mps.is_available()}
try:
    if torch.version.cuda:
        torch.cuda.init()
        found["gpu"] = torch.cuda.get_device_name(0)
        torch.ones(8, 8, device="cuda").matmul(torch.ones(8, 8, device="cuda")).sum().item()
except Exception as error:
    found["error"] = f"{error}".splitlines()[0]
print(json.dumps(found))
""",
    "torchaudio": "import json, torchaudio; print(json.dumps({'version': torchaudio.__version__}))",
    "onnxruntime": """
import json, onnxruntime as o
print(json.dumps({"version": f"{o.__version__}, {', '.join(o.get_available_providers())}"}))
""",
    "mlx": """
import json, mlx.core as mx
mx.eval(mx.ones(2) + 1)
print(json.dumps({"version": f"runs on {mx.default_device()}"}))
""",
    "pyworld": """
import json, numpy, pyworld
pyworld.dio(numpy.zeros(1600), 16000)
print(json.dumps({"version": pyworld.__version__}))
""",
    "PortAudio": """
import json, sounddevice as s
inputs = sum(d["max_input_channels"] > 0 for d in s.query_devices())
print(json.dumps({"version": f"{s.get_portaudio_version()[1]}, {inputs} microphones"}))
""",
}
_NEEDED = ("torch", "onnxruntime", "pyworld")
_WITHOUT = {
    "torchaudio": "speechbrain wants it; podtool decodes and resamples by itself",
    "mlx": "only mlx engines need it",
    "PortAudio": "only `live` from a microphone needs it",
}
_MODULES = {"PortAudio": "sounddevice"}
_PROBE_S = 120.0

# What backends say when they do not load, and what to do then.
_KNOWN = (
    ("libmlx", "On Linux MLX needs its CPU part as well: pip install 'mlx[cpu]'."),
    ("PortAudio library not found", "apt install libportaudio2, or brew install portaudio"),
    ("undefined symbol", "torch and what is built on it are of different releases: install torch "
     "and torchaudio of one release together, from one index."),
    ("libcu|libnv|libnccl|libtorch_cuda", "A build for CUDA without its libraries: install "
     "torch and torchaudio together from one index, that of the CPU or that of your CUDA."),
    ("pkg_resources", "pip install 'setuptools<81'"),
    ("GLIBC", "Built for a newer system: update it, or install an older release."),
    ("compiled using NumPy 1|_ARRAY_API|numpy.dtype size changed",
     "Built for another NumPy: pip install --force-reinstall the package."),
    ("No module named", "pip install podtool"),
)  # fmt: skip


def _backends() -> Iterator[Finding]:
    """The packages that may be installed and yet not work, each tried in its own process."""
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(_PROBES, pool.map(_tried, _PROBES), strict=True))
    yield from _torch(found.pop("torch"))
    yield from _gpu()
    for name, result in found.items():
        if isinstance(result, dict):
            yield Finding("backends", name, str(result["version"]))
            continue
        needed = name in _NEEDED or (name == "mlx" and _apple_silicon())
        state = "missing" if needed else "note"
        value = f"{result}: {_WITHOUT[name]}" if name in _WITHOUT else result
        yield Finding("backends", name, value, state, _advice(result))


def _apple_silicon() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _tried(name: str) -> dict[str, object] | str:
    """What a probe found, or in words what became of it."""
    if importlib.util.find_spec(_MODULES.get(name, name)) is None:
        return "not installed"
    command = [sys.executable, "-c", _PROBES[name]]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"hangs: no answer in {_PROBE_S:.0f} s"
    if done.returncode < 0:
        return f"crashes when it is loaded ({signal.Signals(-done.returncode).name})"
    try:
        answer: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer
    except (ValueError, IndexError):
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raised = [x for x in lines if re.match(r"[\w.]*(Error|Exception)\b", x)]
        return f"does not load: {(raised or lines[-1:])[0][:300]}"  # the first is the cause


def _advice(said: str) -> str:
    if said.startswith(("crashes", "hangs")):
        return "Install it again: pip install --force-reinstall; engines that use it have workers."
    return next((hint for pattern, hint in _KNOWN if re.search(pattern, said)), "")


def _torch(found: dict[str, object] | str) -> Iterator[Finding]:
    if isinstance(found, str):
        yield Finding("torch", "torch", found, "missing", _advice(found) or "pip install podtool")
        return
    build = f"CUDA {found['cuda']}" if found["cuda"] else "CPU"
    value = f"{found['version']}, built for {build}, {found['threads']} threads"
    yield Finding("torch", "torch", value)
    devices = ["cpu"]
    if found["mps"]:
        devices.insert(0, "mps")
    if found["gpu"] and not found["error"]:
        devices.insert(0, f"cuda ({found['gpu']})")
    yield Finding("torch", "devices", ", ".join(devices))
    nvidia = Path("/dev/nvidiactl").exists()
    if nvidia and not found["cuda"]:
        hint = "Install torch from the index of your CUDA: see pytorch.org, Get started."
        yield Finding("torch", "CUDA", "a GPU is here, but this torch has no CUDA", "note", hint)
    elif nvidia and found["error"]:
        said = str(found["error"])
        hint = "Restart the machine, or reinstall the NVIDIA driver."
        if "driver" in said and "old" in said:
            hint = "Update the NVIDIA driver, or install a torch for an older CUDA."
        elif "kernel image" in said:
            hint = "This torch has no code for this GPU: install one built for its generation."
        elif "out of memory" in said:
            hint = "Another program holds the GPU's memory: nvidia-smi shows which."
        yield Finding("torch", "CUDA", f"does not work: {said}", "note", hint)
    elif found["gpu"]:
        yield Finding("torch", "CUDA", f"{found['cuda']}, works")


def _gpu() -> Iterator[Finding]:
    """The NVIDIA driver, where there is one."""
    if shutil.which("nvidia-smi") is None:
        return
    query = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    yield Finding("torch", "NVIDIA driver", _first_line("nvidia-smi", *query))


def _packages() -> Iterator[Finding]:
    optional = {"espeakng-loader", "sounddevice"}
    if not _apple_silicon():
        optional.add("mlx-whisper")
    for name in PACKAGES:
        try:
            yield Finding("packages", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            state = "note" if name in optional else "missing"
            yield Finding("packages", name, "not installed", state, f"pip install {name}")


def _engines() -> Iterator[Finding]:
    """Environments of engines' own, and declared programs."""
    from podtool import engines
    from podtool.engines import environments
    from podtool.errors import PodtoolError

    for name, requires in environments.installed().items():
        python = environments.python_of(name)
        works = python is not None and "Python" in _first_line(str(python), "--version")
        hint = "" if works else f"podtool engines install {name} --again"
        state = "ok" if works else "missing"
        yield Finding("engines", name, f"own environment: {', '.join(requires)}", state, hint)
    try:
        for stage in engines.BUILTIN:
            for name, declared in engines.declarations(stage).items():
                found = declared.program()
                value, state = (found, "ok") if found else (f"no {declared.command[0]}", "note")
                yield Finding("engines", f"{stage} {name}", f"program: {value}", state)
    except PodtoolError as error:
        yield Finding("engines", "engines.toml", error.message, "missing", error.hint or "")


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
            hint = f"podtool models pull {'embedded' if name in embedded else name}"
            yield Finding("store", name, state, fault, "" if state == "ready" else hint)
    except PodtoolError as error:
        yield Finding("store", "models", error.message, "missing")
