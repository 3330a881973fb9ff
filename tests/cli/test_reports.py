"""doctor and engines: what they say of a machine that has everything, or no weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from podtool import engines

ROOT = Path(__file__).resolve().parents[2]


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_engines_say_what_is_missing(run: Callable[..., Result], own_home: Path) -> None:
    found = rows(run("engines", "--json").stdout)
    everything = {(s, n) for s in engines.BUILTIN for n in engines.engine_names(s)}
    assert {(r["stage"], r["engine"]) for r in found} == everything
    by_name = {r["engine"]: r for r in found if r["stage"] == "embedding"}
    assert by_name["campplus"]["available"] is False
    assert by_name["campplus"]["hint"] == "podtool models pull embedded"
    assert not any(r["auto"] and not r["available"] for r in found)
    table = run("engines", "list", "--stage", "vad")
    assert table.exit_code == 0 and "silero" in table.stdout and "campplus" not in table.stdout
    assert run("engines", "--stage", "juggling").exit_code == 5


@pytest.mark.slow
def test_doctor_without_weights(run: Callable[..., Result], own_home: Path) -> None:
    found = run("doctor", "--json")
    by_item = {r["item"]: r for r in rows(found.stdout)}
    assert {
        "python",
        "platform",
        "cores",
        "memory",
        "ffmpeg",
        "C++ compiler",
        "Python headers",
    } < set(by_item)
    assert {"torch", "devices", "onnxruntime", "PortAudio", "free disk", "silero-vad"} < set(
        by_item
    )
    assert by_item["silero-vad"]["state"] == "missing"
    assert by_item["home"]["value"] == str(own_home)
    assert found.exit_code == 5
    assert "podtool models pull embedded" in found.stderr


@pytest.mark.slow
@pytest.mark.models
def test_doctor_finds_nothing_wrong_here(run: Callable[..., Result]) -> None:
    found = run("doctor", "--json")
    missing = [r for r in rows(found.stdout) if r["state"] == "missing"]
    assert (found.exit_code, missing) == (0, [])


def test_the_makefile_says_that_a_compiler_is_missing(tmp_path: Path) -> None:
    script = ROOT / "examples" / "check_compiler.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "C++ compiler" in done.stderr
