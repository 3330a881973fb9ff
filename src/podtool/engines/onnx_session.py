"""Opening ONNX models the same way everywhere: CPU, a set number of threads, quiet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from podtool.errors import EngineUnavailableError, ModelError


def open_session(path: Path, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; `threads` 0 means as many as there are cores.

    Raises EngineUnavailableError without onnxruntime, ModelError where the file is not a model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise EngineUnavailableError(
            "onnxruntime is not installed", "pip install onnxruntime"
        ) from None
    if not path.is_file():
        raise ModelError(f"{path} is missing", "podtool models pull embedded")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # inputs of many lengths would each keep an arena
    # Threads that spin while they wait take the core from whoever feeds them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"{path} is not a model that onnxruntime can read: {error}",
            "podtool models pull embedded",
        ) from None


def only_file(folder: Path, *names: str) -> Path:
    """The first of `names` in a model's folder, or its only .onnx file."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.onnx"))
    if len(found) == 1:
        return found[0]
    raise ModelError(f"{folder} holds none of {', '.join(names)}", "podtool models pull embedded")
