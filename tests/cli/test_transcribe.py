"""Options of `transcribe`, with engines that are made up and say what they were given."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from typer.testing import Result

from podtool import engines
from podtool.artifacts import Recording, Turn, Utterance, Word
from podtool.audio import Audio, sha256_of, write_audio
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.rowio import write_rows
from podtool.text import spread_words

Run = Callable[..., Result]


class Echo:
    """Says the options that it was loaded with, and the language that it is asked to read."""

    info: ClassVar[EngineInfo] = EngineInfo(
        "echo", "transcription", "1", "MIT", "embedded", 16000, options=("model", "prompt")
    )

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        options = dict(context.options or {})
        if "model" in options:
            options["model"] = model_folder(context, "none", ("*.bin",), "an echo").name
        return cls(" ".join(f"{k}:{v}" for k, v in sorted(options.items())) or "nothing")

    def languages_heard(self, audio: Audio) -> dict[str, float]:
        return {"nl": 0.7, "de": 0.3}

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        text = f"{self.text} {language}"
        words = tuple(Word(w, a, b, 0.9) for w, a, b in spread_words(text.split(), 0.0, 1.0))
        return [Utterance("u", "", 0.0, 1.0, text, language=language, words=words)]


class Deaf(Echo):
    """Takes no options."""

    info: ClassVar[EngineInfo] = EngineInfo("deaf", "transcription", "1", "MIT", "embedded", 16000)


class Late:
    """Aligns all words in the last second, in any language."""

    info: ClassVar[EngineInfo] = EngineInfo("late", "alignment", "1", "MIT", "embedded", 16000)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        times = spread_words(words, audio.duration - 1, audio.duration)
        return [Word(w, a, b, 0.5) for w, a, b in times]


@pytest.fixture()
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "echoes", sys.modules[__name__])
    made_up = {"echo": "echoes:Echo", "deaf": "echoes:Deaf"}
    monkeypatch.setitem(engines.BUILTIN, "transcription", made_up)
    monkeypatch.setitem(engines.BUILTIN, "alignment", {"late": "echoes:Late"})
    monkeypatch.setitem(engines.BUILTIN, "vad", {})
    audio = tmp_path / "ep.wav"
    write_audio(audio, Audio(np.full((1, 64000), 0.1, np.float32), 16000), "pcm16")
    path = tmp_path / "ep.jsonl"
    recording = Recording("ep", str(audio), sha256_of(audio), 16000, 1, 64000)
    write_rows([recording, Turn("t1", "ep", 0.0, 4.0, "S1")], path)
    return path


def told(result: Result) -> tuple[dict[str, Any], dict[str, Any]]:
    """The provenance of the transcript, and its only utterance."""
    assert result.exit_code == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    (utterance,) = [r for r in found if r["kind"] == "utterance"]
    return next(r for r in found if r.get("stage") == "transcribe"), utterance


def test_the_language_is_told_or_given(run: Run, rows: Path) -> None:
    made_by, heard = told(run("transcribe", rows))
    assert heard["text"] == "nothing nl" and heard["language"] == "nl"
    given_by, given = told(run("transcribe", rows, "--language", "pt-BR"))
    assert given["text"] == "nothing pt-BR" and given["language"] == "pt-BR"
    assert made_by["key"] != given_by["key"]


def test_words_are_timed_by_the_aligner_or_the_recogniser(run: Run, rows: Path) -> None:
    made_by, aligned = told(run("transcribe", rows))
    assert aligned["words"][0]["start"] == pytest.approx(3.0) and "late 1" in made_by["engine"]
    own_by, own = told(run("transcribe", rows, "--align", "own"))
    assert own["words"][0]["start"] == 0.0 and "late" not in own_by["engine"]
    assert told(run("transcribe", rows, "--align", "late"))[1]["words"] == aligned["words"]
    unknown = run("transcribe", rows, "--align", "sideways")
    assert unknown.exit_code == 5 and "sideways" in unknown.stderr


def test_prompt_and_model_reach_the_engine_and_the_key(
    run: Run, rows: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"1")
    words = ("transcribe", rows, "--prompt", "Anneke", "--model", folder)
    made_by, heard = told(run(*words))
    assert heard["text"] == "model:weights prompt:Anneke nl"
    assert told(run(*words))[0]["key"] == made_by["key"]
    (folder / "a.bin").write_bytes(b"2")
    assert told(run(*words))[0]["key"] != made_by["key"]
    missing = run("transcribe", rows, "--model", tmp_path / "nowhere")
    assert missing.exit_code == 6 and "nowhere" in missing.stderr


def test_an_engine_without_a_prompt_says_that_it_ignores_it(run: Run, rows: Path) -> None:
    ignored = run("transcribe", rows, "--engine", "deaf", "--prompt", "Anneke")
    assert ignored.exit_code == 0 and "deaf takes no prompt" in ignored.stderr


def test_turns_are_read_throughout_where_that_is_wanted(
    run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.BUILTIN, "vad", {"silero": "echoes:Nobody"})
    assert told(run("transcribe", rows, "--set", "transcribe.gate=false"))[1]["text"]
    gated = run("transcribe", rows)
    assert gated.exit_code == 0 and '"kind": "utterance"' not in gated.stdout


class Nobody:
    """A detector that never hears anybody."""

    info: ClassVar[EngineInfo] = EngineInfo("silero", "vad", "1", "MIT", "embedded", 16000)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def detect(self, audio: Audio) -> list[Any]:
        return []
