"""A finished audio file to standard output, in bounded memory."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def copy_to_stdout(path: Path) -> None:
    """The bytes of a file; refused on a terminal."""
    from podtool.errors import UsageError

    if sys.stdout.isatty():
        raise UsageError("audio is not written to a terminal", "Redirect it: > out.wav")
    with path.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    sys.stdout.buffer.flush()
