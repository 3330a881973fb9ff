"""Environments of their own for engines that cannot be installed beside the others.

`$PODTOOL_HOME/environments/<engine>` is a venv with the packages that the engine requires; its
worker runs there, on podtool's own source, and needs numpy besides. Only `install` touches the
network, through pip, so that the user's mirrors and proxies hold.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from podtool.engines.protocols import EngineInfo
from podtool.errors import EngineUnavailableError, OutputError, UsageError
from podtool.home import home, offline

log = logging.getLogger(__name__)

_READY = "ready.json"  # written last: without it the environment is half made, and not used


def folder(engine: str) -> Path:
    """Where the environment of an engine lies or would lie."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", engine):
        raise UsageError(f"{engine!r} is no name of an engine")
    return home() / "environments" / engine


def python_of(engine: str) -> Path | None:
    """The Python of an engine's environment; None where there is none, or a half-made one."""
    place = home() / "environments" / engine
    if not (place / _READY).is_file():
        return None
    return _python(place)


def installed() -> dict[str, list[str]]:
    """Engine -> what was installed for it."""
    found = {}
    for stamp in sorted((home() / "environments").glob(f"*/{_READY}")):
        try:
            found[stamp.parent.name] = list(json.loads(stamp.read_text("utf-8"))["requires"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            log.debug("%s: %s", stamp, error)
    return found


def requirements(info: EngineInfo) -> list[str]:
    """What pip has to install for an engine: `requires`, else what its install line names."""
    if info.requires:
        return list(info.requires)
    words = shlex.split(info.install.partition("  ")[0])  # a remark may follow
    if words[:2] != ["pip", "install"]:
        return []
    found: list[str] = []
    for word in words[2:]:
        extra = re.fullmatch(r"podtool\[([\w-]+)\]", word)
        found += _of_extra(extra[1]) if extra else [word]
    return found


def _of_extra(extra: str) -> list[str]:
    """The requirements that an extra of podtool adds, with the rest of their markers."""
    found = []
    for requirement in importlib.metadata.requires("podtool") or []:
        name, _, marker = requirement.partition(";")
        rest = re.sub(rf"""(\s+and\s+)?\(?extra == ['"]{extra}['"]\)?""", "", marker)
        if rest != marker:
            found.append(f"{name.strip()}; {rest.strip()}" if rest.strip() else name.strip())
    return found


def install(info: EngineInfo, python: str | None = None, again: bool = False) -> Path:
    """Make the environment of an engine and return its folder.

    `python`: the interpreter that it is made of, podtool's own by default. Raises UsageError where
    it is there already or podtool is told to stay offline, EngineUnavailableError where pip fails,
    OutputError.
    """
    place = folder(info.name)
    requires = requirements(info)
    if not requires:
        raise EngineUnavailableError(
            f"{info.name} needs no environment of its own", info.install or None
        )
    if python_of(info.name) is not None and not again:
        raise UsageError(f"{place} is there already", "Give --again to make it anew.")
    if offline():
        raise UsageError("podtool is told to stay offline", "Unset PODTOOL_OFFLINE.")
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {place}: {error.strerror}") from None
    try:
        _run([python or sys.executable, "-m", "venv", str(place)])
        pip = [str(_python(place)), "-m", "pip", "--disable-pip-version-check", "install"]
        _run([*pip, "numpy", *requires])
        _run([str(_python(place)), "-I", "-c", _imports(info)])
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    (place / _READY).write_text(json.dumps({"requires": ["numpy", *requires]}) + "\n", "utf-8")
    return place


def remove(engine: str) -> bool:
    """Delete the environment of an engine; False where there was none. Raises OutputError."""
    place = folder(engine)
    if not place.exists():
        return False
    try:
        (place / _READY).unlink(missing_ok=True)
        shutil.rmtree(place)
    except OSError as error:
        raise OutputError(f"cannot remove {place}: {error.strerror}") from None
    return True


def _python(place: Path) -> Path:
    return place / "bin" / "python"


def _imports(info: EngineInfo) -> str:
    """A program that fails where the packages of an engine cannot be found."""
    return (
        "import importlib.util, sys\n"
        f"gone = [p for p in {('numpy', *info.packages)!r} if not importlib.util.find_spec(p)]\n"
        "sys.exit(f'still missing: {gone}' if gone else 0)"
    )


def _run(command: Sequence[str]) -> None:
    log.info("%s", " ".join(command[:6]))
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EngineUnavailableError(f"{command[0]} does not run: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EngineUnavailableError(
            f"making the environment failed: {said[-1] if said else done.returncode}",
            " ".join(command),
        )
