"""The pool of finished takes of a run directory: `<key>.wav` and `<key>.json`, by content key.

It outlives the stages, so changing one word makes one take again, also after a crash in the middle
of a stage. The WAV gets its name last: where it is and its hash agrees, the take is finished.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podtool.audio import Audio, sha256_of, write_audio
from podtool.rundir import write_json


@dataclass(frozen=True, slots=True)
class PooledTake:
    """A finished take: its file, the hash of it, and what was found out while it was made."""

    path: Path
    sha256: str
    facts: dict[str, Any]


class TakePool:
    """Takes by key in one folder, which is made when the first one is put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> PooledTake | None:
        """The finished take of a key, None where there is none or its file is damaged."""
        path = self.folder / f"{key}.wav"
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            digest, facts = str(record["sha256"]), dict(record["facts"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not path.is_file() or sha256_of(path) != digest:
            return None
        return PooledTake(path, digest, facts)

    def put(self, key: str, audio: Audio | Iterable[Audio], facts: dict[str, Any]) -> PooledTake:
        """Keep a take as float WAV. Raises OutputError."""
        path = self.folder / f"{key}.wav"
        making = self.folder / f"{key}.part.wav"
        self.folder.mkdir(exist_ok=True)
        write_audio(making, audio, "float")
        digest = sha256_of(making)
        write_json(path.with_suffix(".json"), {"sha256": digest, "facts": facts})
        os.replace(making, path)
        return PooledTake(path, digest, facts)

    def copy_to(self, take: PooledTake, target: Path) -> None:
        """A second name for the file where the file system allows it, else a copy."""
        try:
            os.link(take.path, target)
        except OSError:
            shutil.copyfile(take.path, target)

    def prune(self, keep: Iterable[str]) -> tuple[int, int]:
        """Remove all takes but those of the keys; (files removed, bytes freed)."""
        kept = set(keep)
        removed = freed = 0
        for path in sorted(self.folder.glob("*")):
            if path.is_file() and path.name.split(".")[0] not in kept:
                freed += path.stat().st_size
                path.unlink()
                removed += 1
        return removed, freed
