"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from podtool.errors import OutputError


def write(path: Path, content: bytes | memoryview, hint: str | None = None) -> None:
    """Put `content` in place of what was at `path`, on disk when this returns.

    Raises OutputError, with what was there before untouched.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}", hint) from None
