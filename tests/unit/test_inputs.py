"""A stem is heard with a share of its recording beneath it, where the two fit each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from podtool import pipeline
from podtool.audio import Audio, AudioSource, open_audio, write_audio
from podtool.engines.protocols import EngineContext
from podtool.errors import InputError
from podtool.inputs import over_recording, recording_of
from podtool.stages.diarize import DiarizeParams
from podtool.store import ModelStore

RATE = 16000


def written(path: Path, level: float, frames: int = RATE) -> Path:
    write_audio(path, Audio(np.full((2, frames), level, np.float32), RATE), "float")
    return path


def test_a_share_of_the_recording_lies_beneath_a_stem(tmp_path: Path) -> None:
    whole, stem = written(tmp_path / "whole.wav", 0.5), written(tmp_path / "stem.wav", 0.1)
    recording = recording_of(whole, open_audio(whole))
    heard = over_recording(open_audio(stem), recording, 0.25)
    assert (heard.frames, heard.channels, heard.sample_rate) == (RATE, 2, RATE)
    assert np.allclose(heard.read(10, 20).samples, 0.2) and heard.read(10, 20).frames == 10
    assert heard.read().frames == RATE


def test_what_is_no_stem_of_it_is_heard_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = written(tmp_path / "whole.wav", 0.5)
    recording = recording_of(whole, open_audio(whole))
    short = open_audio(written(tmp_path / "short.wav", 0.1, RATE // 2))
    stem = open_audio(written(tmp_path / "stem.wav", 0.1))
    itself = open_audio(whole)
    assert over_recording(itself, recording, 0.25) is itself
    assert over_recording(short, recording, 0.25) is short
    assert over_recording(stem, recording, 0.0) is stem
    whole.unlink()
    assert over_recording(stem, recording, 0.25) is stem and "whole.wav" in caplog.text


def test_the_share_is_a_share() -> None:
    with pytest.raises(InputError, match="share from 0 to 1"):
        DiarizeParams(beneath=1.5).count()


def test_every_diarization_of_a_stem_hears_its_recording_beneath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stem = written(tmp_path / "whole.wav", 0.5), written(tmp_path / "stem.wav", 0.1)
    heard: list[AudioSource] = []

    def listen(audio: AudioSource, *_: object, **__: object) -> None:
        heard.append(audio)
        raise InputError("enough")

    monkeypatch.setattr(pipeline, "load", lambda *_: None)
    monkeypatch.setattr("podtool.stages.diarize.diarize", listen)
    recording = recording_of(whole, open_audio(whole))
    context = EngineContext(ModelStore(tmp_path))
    with pytest.raises(InputError, match="enough"):
        pipeline.diarize_file(open_audio(stem), recording, context, DiarizeParams(beneath=0.25))
    assert np.allclose(heard[0].read(0, 9).samples, 0.2)
