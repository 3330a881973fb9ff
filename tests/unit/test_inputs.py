"""A stem is heard with a share of its recording beneath it, where the two fit each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from podtool.audio import Audio, open_audio, write_audio
from podtool.errors import InputError
from podtool.inputs import over_recording, recording_of
from podtool.stages.diarize import DiarizeParams

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
