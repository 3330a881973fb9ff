"""Where podtool keeps what outlives a command: weights, known people, spooled input."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """`PODTOOL_HOME`, else the platform's place for application data."""
    chosen = os.environ.get("PODTOOL_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "podtool"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "podtool"


def offline() -> bool:
    """Whether `PODTOOL_OFFLINE` forbids the network."""
    return os.environ.get("PODTOOL_OFFLINE", "") not in ("", "0")
