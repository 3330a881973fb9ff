"""`podtool engines`: the list, the bench, environments of engines' own."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from podtool import engines
from podtool.audio import Audio
from podtool.engines import environments
from podtool.engines.bench import remembered
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineFailure
from podtool.store import ModelStore

TROUBLESOME = Path(__file__).resolve().parents[1] / "contract"

ELSEWHERE = '''
"""An engine whose backend is in an environment of its own alone."""
import sys
from podtool.engines.protocols import EngineInfo
from podtool.artifacts import Utterance


class Elsewhere:
    info = EngineInfo(
        "elsewhere", "transcription", "1", "MIT", "best", 16000, packages=("only_there",)
    )

    def __init__(self, prefix, has_torch):
        self.prefix, self.has_torch = prefix, has_torch

    @classmethod
    def load(cls, context):
        import importlib.util
        import only_there
        return cls(sys.prefix, importlib.util.find_spec("torch") is not None)

    def transcribe(self, audio, language):
        import only_there
        return [Utterance("u1", "", 0.0, audio.duration, only_there.TEXT)]
'''


@pytest.fixture()
def tiny(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> Path:
    """Only engines of troublesome.py, and a home of their own."""
    monkeypatch.syspath_prepend(str(TROUBLESOME))
    table = {"good": "troublesome:Good", "cursed": "troublesome:Cursed"}
    monkeypatch.setitem(engines.BUILTIN, "transcription", table)
    return own_home


def rows(text: str) -> dict[str, dict[str, Any]]:
    return {r["engine"]: r for r in map(json.loads, text.splitlines())}


@pytest.mark.slow
def test_bench_times_what_runs_and_remembers_it(run: Callable[..., Result], tiny: Path) -> None:
    before = rows(run("engines", "--stage", "transcription", "--json").stdout)
    assert before["good"]["rtf"] is None
    done = run("engines", "bench", "transcription", "--seconds", 4, "--json")
    assert done.exit_code == 9 and "cursed" in done.stderr and "SIGSEGV" in done.stderr
    timed = rows(done.stdout)
    assert list(timed) == ["good"] and 0 < timed["good"]["rtf"] < 1
    assert timed["good"]["audio_s"] == 4 and 10 < timed["good"]["peak_mb"] < 500
    after = rows(run("engines", "--stage", "transcription", "--json").stdout)
    assert after["good"]["rtf"] == timed["good"]["rtf"] and after["cursed"]["rtf"] is None
    assert f"{after['good']['rtf']:.3f}" in run("engines", "--stage", "transcription").stdout
    info = engines.engine_class("transcription", "good").info
    assert remembered(info, "cpu") and not remembered(info, "cuda")
    assert not remembered(replace(info, version="2"), "cpu")  # another adapter, another figure
    (tiny / "benchmarks.json").write_text("nonsense")
    assert remembered(info, "cpu") is None


def test_bench_refuses_what_it_does_not_know(run: Callable[..., Result], own_home: Path) -> None:
    assert run("engines", "bench", "juggling").exit_code == 5
    assert run("engines", "bench", "conversion").exit_code == 5
    assert run("engines", "bench", "vad", "--engine", "sliero").exit_code == 5
    assert run("engines", "bench", "vad", "--seconds", 0).exit_code == 2


def test_the_list_shows_the_extra_of_an_install_line(
    run: Callable[..., Result], own_home: Path
) -> None:
    shown = "".join(run("engines", "--stage", "speaking").stdout.split())
    found = rows(run("engines", "--stage", "speaking", "--json").stdout)["espeak"]
    assert found["available"] or "podtool[speak]" in shown


def wheel(folder: Path) -> Path:
    """A package `only_there` of one module, as a wheel made by hand."""
    info = "only_there-1.0.dist-info"
    files = {
        "only_there.py": "TEXT = 'from there'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: only-there\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    path = folder / "only_there-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            digest = hashlib.sha256(text.encode()).digest()
            coded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            record += f"{name},sha256={coded},{len(text)}\n"
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


@pytest.mark.slow
def test_an_engine_in_an_environment_of_its_own(
    run: Callable[..., Result], own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = __import__("elsewhere").Elsewhere
    monkeypatch.setitem(engines.BUILTIN, "transcription", {"elsewhere": "elsewhere:Elsewhere"})
    package = wheel(tmp_path)
    kind.info = replace(kind.info, requires=(str(package),))
    before = rows(run("engines", "--stage", "transcription", "--json").stdout)["elsewhere"]
    assert not before["installed"] and before["hint"] == "podtool engines install elsewhere"

    monkeypatch.setenv("PODTOOL_OFFLINE", "1")
    refused = run("engines", "install", "elsewhere")
    assert refused.exit_code == 2 and "offline" in refused.stderr
    assert not (own_home / "environments").exists()
    monkeypatch.delenv("PODTOOL_OFFLINE")

    made = run("engines", "install", "elsewhere")
    if made.exit_code == 5 and "numpy" in made.stderr:
        pytest.skip("numpy cannot be fetched here")
    assert made.exit_code == 0, made.stderr
    assert run("engines", "install", "elsewhere").exit_code == 2  # it is there already
    after = rows(run("engines", "--stage", "transcription", "--json").stdout)["elsewhere"]
    assert after["available"] and after["own_environment"]
    assert list(environments.installed()) == ["elsewhere"]

    # The engine's own module comes with podtool's source in real life; here it goes by hand.
    place = own_home / "environments" / "elsewhere"
    site = next((place / "lib").glob("python*")) / "site-packages"
    (site / "elsewhere.py").write_text(ELSEWHERE)
    with engines.load("transcription", "elsewhere", EngineContext(ModelStore())) as engine:
        audio = Audio(np.ones((1, 16000), np.float32), 16000)
        assert engine.transcribe(audio, None)[0].text == "from there"
        assert engine.prefix == str(place) and not engine.has_torch
    assert "only_there" not in sys.modules

    (place / "bin" / "python").unlink()
    with pytest.raises(EngineFailure, match="does not start"):
        engines.load("transcription", "elsewhere", EngineContext(ModelStore()))
    assert run("engines", "remove", "elsewhere").exit_code == 0 and not place.exists()
    assert run("engines", "remove", "elsewhere").exit_code == 2
    again = rows(run("engines", "--stage", "transcription", "--json").stdout)["elsewhere"]
    assert not again["available"]


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_leaves_nothing(
    run: Callable[..., Result], own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = run("engines", "install", "demucs")
    assert done.exit_code == 5 and "numpy" in done.stderr
    assert not list((own_home / "environments").iterdir())
    assert run("engines", "install", "no-such-engine").exit_code == 5
    assert run("engines", "remove", "../models").exit_code == 2
    assert run("engines", "install", "silero").exit_code in (2, 5)


@pytest.mark.parametrize(
    ("install", "wanted"),
    [
        ("pip install 'podtool[speak]'", ["espeakng-loader>=0.2.4"]),
        ("pip install pyworld 'setuptools<81'   (needs a compiler)", ["pyworld", "setuptools<81"]),
        ("", []),
    ],
)
def test_what_an_environment_needs_stands_in_the_install_line(
    install: str, wanted: list[str]
) -> None:
    info = EngineInfo("x", "vad", "1", "MIT", "best", 16000, install=install)
    assert environments.requirements(info) == wanted
    assert environments.requirements(replace(info, requires=("a==1",))) == ["a==1"]
