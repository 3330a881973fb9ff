"""The README and the examples speak of commands and options that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "engines.md",
    ROOT / "docs" / "live.md",
    ROOT / "docs" / "transcribe.md",
    ROOT / "docs" / "training.md",
    *sorted((ROOT / "examples").glob("*.sh")),
]

GROUPS = ("models", "speakers", "runs", "presets", "train", "engines")


def commands(page: Path) -> Iterator[list[str]]:
    """Every `podtool ...` of a page's code, split as a shell splits it."""
    text = page.read_text()
    if page.suffix == ".md":
        text = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    text = text.replace("\\\n", " ")
    for line in text.splitlines():
        for part in re.split(r"\||&&|;", line.split(" #")[0]):
            part = part.strip()
            if part.startswith("podtool "):
                yield shlex.split(re.split(r"\s[<>]", part)[0].replace("...", "x"))[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_exist(page: Path, run: Callable[..., Any]) -> None:
    for words in commands(page):
        below = words[0] in GROUPS and len(words) > 1 and not words[1].startswith("-")
        names = words[:2] if below else words[:1]
        shown = run(*names, "--help")
        assert shown.exit_code == 0, f"{page.name}: podtool {' '.join(words)}"
        for option in (w.split("=")[0] for w in words if w.startswith("-") and w != "-"):
            assert re.search(rf"(?<![\w-]){option}\b", shown.stdout), f"{words[0]} has no {option}"


def test_the_readme_names_every_command(app: Any) -> None:
    readme = (ROOT / "README.md").read_text()
    import typer.main

    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"`{name}`" in readme, name
