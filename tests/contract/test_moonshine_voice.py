"""Moonshine through moonshine-voice, with the real weights of tiny-en, which the store has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from podtool.audio import Audio, open_audio
from podtool.engines.protocols import EngineContext
from podtool.engines.transcription_moonshine import Moonshine
from podtool.engines.transcription_moonshine_voice import MoonshineVoice
from podtool.errors import EngineFailure, EngineUnavailableError, ModelError
from podtool.resample import resample
from podtool.store import ModelStore
from podtool.text import normalise


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in a folder whose name says what they are."""
    try:
        weights = ModelStore().folder("moonshine-tiny-en")
    except ModelError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    path = tmp_path_factory.mktemp("moonshine") / "tiny-en"
    path.symlink_to(weights)
    return path


def context(folder: Path | str) -> EngineContext:
    return EngineContext(NoStore(), threads=1, options={"model": str(folder)})


@pytest.fixture(scope="module")
def engine(folder: Path) -> MoonshineVoice:
    pytest.importorskip("moonshine_voice")
    return MoonshineVoice.load(context(folder))


@pytest.fixture(scope="module")
def reading(data: Path) -> tuple[Audio, list[str]]:
    rows = [json.loads(line) for line in (data / "MANIFEST.jsonl").open()]
    row = next(r for r in rows if r["kind"] == "read" and r["path"].endswith("jfk.flac"))
    with open_audio(data / row["path"]) as file:
        return resample(file.read(), 16000), normalise(row["transcript"]).split()


@pytest.mark.models
@pytest.mark.engine("moonshine-voice")
def test_reads_a_window_as_one_line(
    engine: MoonshineVoice, reading: tuple[Audio, list[str]]
) -> None:
    audio, said = reading
    found = engine.transcribe(audio, "en-GB")
    assert len(found) == 1 and found[0].language == "en" and found[0].score is None
    heard = normalise(found[0].text).split()
    assert len(set(heard) & set(said)) / len(set(said)) > 0.8
    words = found[0].words or ()
    assert all(w.interpolated and w.score is None for w in words)  # tiny tells no times
    assert all(0 <= w.start <= w.end <= audio.duration for w in words)
    assert engine.transcribe(audio, None) == found


@pytest.mark.models
@pytest.mark.engine("moonshine-voice")
@pytest.mark.parametrize("frames", [0, 1, 160, 1600, 16000])
def test_silence_and_scraps_say_nothing(engine: MoonshineVoice, frames: int) -> None:
    assert engine.transcribe(Audio(np.zeros((2, frames), np.float32), 16000), "en") == []
    noise = np.random.default_rng(0).normal(0, 0.001, (1, frames)).astype(np.float32)
    for found in engine.transcribe(Audio(noise, 16000), "en"):
        assert found.end <= frames / 16000 + 1e-9


class Line:
    def __init__(self, text: str, start: float, words: list[object] | None = None) -> None:
        self.text, self.start_time, self.duration, self.words = text, start, 1.0, words


class Timing:
    def __init__(self, word: str, start: float, end: float, confidence: float) -> None:
        self.word, self.start, self.end, self.confidence = word, start, end, confidence


class Library:
    """Stands for moonshine_voice.Transcriber with a model that tells word times."""

    def transcribe_without_streaming(self, samples: list[float], rate: int) -> Library:
        if len(samples) > 3 * rate:
            raise RuntimeError("out of order")
        timed: list[object] = [Timing("later", 1.2, 1.9, 0.8), Timing("on", 1.8, 9.0, 0.6)]
        self.lines = [Line("later on", 1.1, timed), Line("first so", 0.0)]
        return self


def test_lines_come_in_order_with_the_times_that_there_are() -> None:
    engine = MoonshineVoice(Library())
    audio = Audio(np.ones((1, 32000), np.float32), 16000)
    (found,) = engine.transcribe(audio, "en")
    words = found.words or ()
    assert [w.text for w in words] == ["first", "so", "later", "on"]
    assert [w.interpolated for w in words] == [True, True, None, None]
    assert words[3].start == 1.9 and words[3].end == 2.0 and found.score == pytest.approx(0.7)
    with pytest.raises(EngineFailure, match="out of order"):
        engine.transcribe(Audio(np.ones((1, 64000), np.float32), 16000), "en")
    with pytest.raises(EngineUnavailableError, match="not de"):
        engine.transcribe(audio, "de")


def test_the_folder_says_which_model_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONSHINE_VOICE_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as told:
        MoonshineVoice.locate(EngineContext(NoStore()))
    assert "moonshine_voice.download" in (told.value.hint or "")
    here = tmp_path / "download.moonshine.ai/model/medium-streaming-en/quantized"
    here.mkdir(parents=True)
    (here / "streaming_config.json").write_text("{}")
    assert MoonshineVoice.locate(EngineContext(NoStore()))[0] == here
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "encoder.ort").write_bytes(b"")
    with pytest.raises(ModelError, match="which Moonshine"):
        MoonshineVoice.locate(context(tmp_path / "mine"))


@pytest.mark.models
def test_the_direct_engine_takes_a_folder_too(folder: Path, tmp_path: Path) -> None:
    own = Moonshine.load(context(folder))
    assert own.model.past and {shape for shape in own.model.past.values()} == {(8, 36)}
    with pytest.raises(ModelError, match="encoder_model.ort"):
        Moonshine.load(context(tmp_path))
