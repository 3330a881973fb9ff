"""The model store: weights under `$PODTOOL_HOME/models/<id>/<digest[:12]>/`, verified or absent.

A model is fetched into a hidden folder beside its place, every file compared with the sha256 in
models.toml, pickles converted once, and the folder renamed when all of it is on disk: what has
its final name is whole. Later uses trust size and modification time; `verify` hashes again.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podtool.audio import sha256_of
from podtool.errors import ModelError, OutputError
from podtool.home import home as default_home
from podtool.home import offline
from podtool.progress import OnProgress, Progress, ignore
from podtool.store.fetch import Origin, download, free_bytes, parse_origin, unpack
from podtool.store.table import Model, ModelFile, ModelTable

log = logging.getLogger(__name__)

STAMP = "stamp.json"
Announce = Callable[[Model], None]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is known of one verified file: its hash, and the size and time that vouch for it."""

    sha256: str
    size: int
    mtime_ns: int


class ModelStore:
    """Weights on this machine: engines ask `folder`, and only `pull` fetches."""

    def __init__(self, home: Path | None = None, table: ModelTable | None = None) -> None:
        self.home = home or default_home()
        self._table = table

    @property
    def table(self) -> ModelTable:
        """The shipped models, and those of `$PODTOOL_HOME/models.toml`."""
        if self._table is None:
            self._table = ModelTable.shipped().with_user_table(self.home / "models.toml")
        return self._table

    @property
    def root(self) -> Path:
        return self.home / "models"

    def place(self, model: Model) -> Path:
        """Where a model lies or would lie."""
        return self.root / model.id / model.digest[:12]

    def digest(self, model_id: str) -> str:
        """Hex sha256 that identifies a model's content, for provenance keys."""
        return self.table[model_id].digest

    def folder(self, model_id: str) -> Path:
        """The folder of a model's files. Raises ModelError (exit 6) for missing or damaged ones."""
        model = self.table[model_id]
        place = self.place(model)
        if not (place / STAMP).is_file():
            raise ModelError(
                f"the weights of {model_id} are missing ({human(model.bytes)})", pull_line(model)
            )
        problems = self._problems(model, rehash=False)
        if problems:
            raise ModelError(
                f"the weights of {model_id} are damaged: {problems[0]}", pull_line(model)
            )
        return place

    def source(self, model_id: str, converted: str) -> Path:
        """The local file of which a pull made `converted`, checked by its hash.

        Raises ModelError where it came from elsewhere, is gone, or has changed.
        """
        model = self.table[model_id]
        for file in model.files:
            origin = _origin(model, file)
            if file.converted != converted or origin.remote or origin.member:
                continue
            path = Path(origin.location)
            if path.is_file() and sha256_of(path) == file.sha256:
                return path
        raise ModelError(
            f"the weights of {model_id} in the form before their conversion are not on this machine"
        )

    def state(self, model_id: str) -> str:
        """`ready`, `missing` or `damaged`."""
        model = self.table[model_id]
        if not (self.place(model) / STAMP).is_file():
            return "missing"
        return "damaged" if self._problems(model, rehash=False) else "ready"

    def verify(self, model_id: str) -> list[str]:
        """Hash every file again; what is wrong with them, empty where all are as pulled."""
        model = self.table[model_id]
        if not (self.place(model) / STAMP).is_file():
            return ["missing"]
        return self._problems(model, rehash=True)

    def remove(self, model_id: str) -> int:
        """Delete a model, all versions of it. Returns the bytes that this freed."""
        folder = self.root / self.table[model_id].id
        freed = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        if folder.exists():
            # Renamed first: a removal that breaks off must not leave half a model in place.
            hidden = folder.with_name(f".{folder.name}.rm-{os.getpid()}")
            folder.rename(hidden)
            shutil.rmtree(hidden)
        return freed

    def pull(
        self,
        names: Sequence[str],
        *,
        accept_licence: bool = False,
        commercial: bool = False,
        announce: Announce = lambda _: None,
        on_progress: OnProgress = ignore,
    ) -> list[Model]:
        """Fetch what is missing of the named models and groups; returns what was fetched.

        `announce` is called with each model, before anything is transferred. Licences are checked
        for all of them first. Raises ModelError: licence, offline, network, sha256, conversion.
        """
        models = self.table.expand(list(names))
        wanted = [m for m in models if self.state(m.id) != "ready"]
        for model in wanted:
            announce(model)
        for model in models:
            check_licence(model, accept_licence, commercial)
        remote = [m for m in wanted if any(_origin(m, f).remote for f in m.files)]
        if remote and offline():
            raise ModelError(
                f"offline: {', '.join(m.id for m in remote)} cannot be fetched",
                "Unset PODTOOL_OFFLINE or leave out --offline, and pull again.",
            )
        if not wanted:
            return []
        self._make_room(wanted)
        with _exclusive(self.root / ".lock"):
            wanted = [m for m in wanted if self.state(m.id) != "ready"]  # another may have pulled
            self._sweep()
            self._fetch_all(wanted, on_progress)
        return wanted

    # ------------------------------------------------------------------ fetching

    def _fetch_all(self, models: list[Model], on_progress: OnProgress) -> None:
        """Archive by archive, so that one that several models share is fetched once."""
        incoming = self.root / f".incoming-{os.getpid()}"
        incoming.mkdir(parents=True)
        left = {m.id: {f.path for f in m.files} for m in models}
        try:
            for number, (origin, parts) in enumerate(_by_archive(models)):
                self._fetch_one(origin, parts, incoming, number, on_progress)
                for model, file in parts:
                    left[model.id].discard(file.path)
                    if not left[model.id]:
                        self._finish(model, incoming / model.id, on_progress)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _fetch_one(
        self,
        origin: Origin,
        parts: list[tuple[Model, ModelFile]],
        incoming: Path,
        number: int,
        on_progress: OnProgress,
    ) -> None:
        archive = incoming / f"{number}.part"

        def on_bytes(done: int, total: int) -> None:
            on_progress(Progress(f"fetch {origin.name.split('-')[0]}", done, total or done, "B"))

        got = download(origin, archive, on_bytes)
        for model, file in parts:
            target = incoming / model.id / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            member = _origin(model, file).member
            if member:
                got = unpack(archive, member, target, file.bytes)
            elif len(parts) == 1:
                archive.rename(target)
            else:
                shutil.copyfile(archive, target)
            if got != file.sha256:
                raise ModelError(
                    f"{file.path} of {model.id} is not what models.toml promises: sha256 "
                    f"{got[:12]}... instead of {file.sha256[:12]}...",
                    "The transfer was corrupted, or the source has changed. Nothing was kept.",
                )
        archive.unlink(missing_ok=True)

    def _finish(self, model: Model, folder: Path, on_progress: OnProgress) -> None:
        """Convert, stamp, flush, and put the folder in its place."""
        for file in model.files:
            if file.convert:
                on_progress(Progress(f"convert {model.id}", 0, 1, ""))
                _convert(model, file, folder)
                on_progress(Progress(f"convert {model.id}", 1, 1, ""))
        stamps = {f.kept: _stamp(folder / f.kept) for f in model.files}
        _write_stamps(folder, stamps)
        place = self.place(model)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():  # damaged, or it would not have been fetched
            shutil.rmtree(place)
        folder.rename(place)
        _fsync_folder(place.parent)
        log.info("%s: ready in %s", model.id, place)

    def _make_room(self, models: list[Model]) -> None:
        need = 3 * sum(m.bytes for m in models)  # archive, file and conversion side by side
        free = free_bytes(self.root)
        if free < need:
            raise OutputError(
                f"{self.root} has {human(free)} left; the pull needs up to {human(need)}",
                "Free some space, or set PODTOOL_HOME to another disk.",
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.root}: {error.strerror}", "Set PODTOOL_HOME to another folder."
            ) from None

    def _sweep(self) -> None:
        """Remove what interrupted pulls and removals left behind; called under the lock."""
        for leftover in [*self.root.glob(".incoming-*"), *self.root.glob(".*.rm-*")]:
            shutil.rmtree(leftover, ignore_errors=True)

    # ------------------------------------------------------------------ verifying

    def _problems(self, model: Model, rehash: bool) -> list[str]:
        place = self.place(model)
        stamps = _read_stamps(place)
        if stamps is None:
            return [f"{STAMP} is not readable"]
        found: list[str] = []
        refreshed = dict(stamps)
        for file in model.files:
            path, stamp = place / file.kept, stamps.get(file.kept)
            if stamp is None or not path.is_file():
                found.append(f"{file.kept} is missing")
                continue
            facts = path.stat()
            if facts.st_size != stamp.size:
                found.append(f"{file.kept} has {facts.st_size} bytes instead of {stamp.size}")
            elif rehash or facts.st_mtime_ns != stamp.mtime_ns:
                if sha256_of(path) != stamp.sha256:
                    found.append(f"{file.kept} has another sha256")
                else:
                    refreshed[file.kept] = _stamp(path, stamp.sha256)
        if not found and refreshed != stamps:
            with contextlib.suppress(OSError):  # a read-only store is fine, only slower
                _write_stamps(place, refreshed)
        return found


def check_licence(model: Model, accept_licence: bool, commercial: bool) -> None:
    """Raises ModelError where the licence forbids the use, or has not been accepted."""
    if not model.restricted:
        return
    where = f"{model.licence}, {model.licence_url or model.source}"
    if commercial:
        raise ModelError(
            f"{model.id} is {model.restricted} ({where}): refused by --commercial",
            "Choose another engine (podtool engines list), or leave out --commercial.",
        )
    if not accept_licence:
        raise ModelError(
            f"{model.id} is {model.restricted} ({where})",
            f"Read it, then: podtool models pull {model.id} --accept-licence",
        )


def pull_line(model: Model) -> str:
    """The command that fetches a model: the embedded ones come together."""
    return f"podtool models pull {'embedded' if 'embedded' in model.groups else model.id}"


def human(size: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _origin(model: Model, file: ModelFile) -> Origin:
    return parse_origin(file.origin, model.folder)


def _by_archive(models: list[Model]) -> list[tuple[Origin, list[tuple[Model, ModelFile]]]]:
    """(archive, the files to take out of it), in the order of first need."""
    found: dict[str, tuple[Origin, list[tuple[Model, ModelFile]]]] = {}
    for model in models:
        for file in model.files:
            origin = _origin(model, file)
            found.setdefault(f"{origin.kind}:{origin.location}", (origin, []))[1].append(
                (model, file)
            )
    return list(found.values())


def _convert(model: Model, file: ModelFile, folder: Path) -> None:
    """Run the table's own converter on one file; the source is not kept."""
    module, _, name = file.convert.partition(":")
    source, target = folder / file.path, folder / file.converted
    try:
        convert: Callable[[Path, Path], None] = getattr(importlib.import_module(module), name)
        with contextlib.redirect_stdout(None):  # exporters chat on stdout, which is for data
            convert(source, target)
    except (ModelError, OutputError):
        raise
    except Exception as error:
        raise ModelError(f"{file.path} of {model.id} cannot be converted: {error}") from error
    if not target.is_file():
        raise ModelError(f"{file.convert} wrote no {file.converted}")
    source.unlink()


def _stamp(path: Path, known: str = "") -> Stamp:
    facts = path.stat()
    return Stamp(known or sha256_of(path), facts.st_size, facts.st_mtime_ns)


def _read_stamps(place: Path) -> dict[str, Stamp] | None:
    try:
        data: dict[str, Any] = json.loads((place / STAMP).read_text("utf-8"))
        return {name: Stamp(**facts) for name, facts in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write_stamps(folder: Path, stamps: dict[str, Stamp]) -> None:
    facts = {
        name: {"sha256": s.sha256, "size": s.size, "mtime_ns": s.mtime_ns}
        for name, s in sorted(stamps.items())
    }
    part = folder / f".{STAMP}.{os.getpid()}"
    with part.open("w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / STAMP)
    _fsync_folder(folder)


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Wait for other pulls into this store to end. Without file locks (Windows): no waiting."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log.warning("another process is pulling into %s; waiting for it", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
