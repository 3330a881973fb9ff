"""PocketSphinx as the recogniser of last resort: poor, but with words, times and no weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from podtool.audio import Audio, open_audio
from podtool.engines.protocols import EngineContext
from podtool.engines.transcription_pocketsphinx import PocketSphinx
from podtool.errors import EngineUnavailableError, ModelError
from podtool.resample import resample
from podtool.text import normalise

pytest.importorskip("pocketsphinx")


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


@pytest.fixture(scope="module")
def engine() -> PocketSphinx:
    return PocketSphinx.load(EngineContext(NoStore()))


@pytest.mark.slow
def test_reads_some_words_the_same_each_time(engine: PocketSphinx, data: Path) -> None:
    import jiwer

    rows = [json.loads(line) for line in (data / "MANIFEST.jsonl").open()]
    row = next(r for r in rows if r["kind"] == "read" and r["path"].endswith("jfk.flac"))
    with open_audio(data / row["path"]) as file:
        audio = resample(file.read(), 16000)
    found = engine.transcribe(audio, "en")
    assert engine.transcribe(audio, "en") == found
    error = jiwer.wer(normalise(row["transcript"]), normalise(found[0].text))
    print(f"WER {error:.2f}")
    assert error < 0.6
    words = found[0].words or ()
    assert all(0 <= w.start < w.end <= audio.duration for w in words)
    assert all(w.score is not None and 0 <= w.score <= 1 for w in words)
    assert not any("(" in w.text or "<" in w.text for w in words)


def test_silence_and_other_languages(engine: PocketSphinx) -> None:
    silence = Audio(np.zeros((1, 8000), np.float32), 16000)
    assert engine.transcribe(silence, "en-GB") == []
    with pytest.raises(EngineUnavailableError, match="not sv"):
        engine.transcribe(silence, "sv")
