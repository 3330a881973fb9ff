"""Finding weights that an option names: the store, a folder, or the cache of a model hub."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from podtool.engines.protocols import EngineContext
from podtool.errors import ConfigError, ModelError

_END = 1 << 20


def model_folder(context: EngineContext, default: str, needed: Sequence[str], what: str) -> Path:
    """The folder of the option `model` (else of `default`) that holds all of `needed`.

    A name is an id of the store, the path of a folder, or a hub repository (org/name) that is in
    the hub's cache on this machine: nothing is fetched from here. `needed` are globs, `what` says
    in an error what the model is. Raises ModelError with the line that fetches the model.
    """
    name = (context.options or {}).get("model") or default
    if _in_store(name):
        return context.model(name)
    folder = _found(name, what)
    lacking = [pattern for pattern in needed if not any(folder.glob(pattern))]
    if lacking:
        raise ModelError(f"{folder} is not {what}: it holds no {lacking[0]}")
    return folder


def content_of_model(context: EngineContext, name: str) -> str:
    """What a model that an option names holds, as a hash: part of what a result depends on.

    Of files beyond a megabyte the ends are hashed: whole weights would take longer than the work.
    Raises ModelError where the model is not on this machine.
    """
    if _in_store(name):
        return context.model(name).name
    told = hashlib.sha256()
    folder = _found(name, "a model")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        told.update(f"{path.relative_to(folder)} {size}\n".encode())
        with path.open("rb") as file:
            told.update(file.read(_END))
            file.seek(max(0, size - _END))
            told.update(file.read(_END))
    return told.hexdigest()


def _in_store(name: str) -> bool:
    return "/" not in name and not name.startswith((".", "~"))


def _found(name: str, what: str) -> Path:
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else _cached(name, what)


def _cached(name: str, what: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"there is no model folder {name}")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise ModelError(f"{name} is not on this machine", "pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(repo_id=name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        raise ModelError(f"{what}, {name}, is not on this machine", f"hf download {name}") from None


def whole_number(context: EngineContext, option: str) -> int | None:
    """An option that counts from 1, None where it is not given. Raises ConfigError."""
    text = (context.options or {}).get(option)
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{option} must be a whole number from 1, not {text!r}")
    return int(text)
