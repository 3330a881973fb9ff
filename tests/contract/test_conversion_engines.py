"""What every conversion engine owes its caller, with the weights that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.audio import Audio, open_audio
from podtool.engines.protocols import EngineContext
from podtool.engines.world_profile import SpeechProfile
from podtool.errors import EngineUnavailableError, ModelError
from podtool.resample import resample, to_mono
from podtool.store import ModelStore

pytestmark = pytest.mark.models
RATE = 16000


@pytest.fixture(scope="module")
def speech() -> Audio:
    """A reader's first seconds."""
    try:
        folder = ModelStore().folder("demo-recordings")
    except ModelError as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")
    with open_audio(folder / "two_cities.wav") as file:
        return resample(to_mono(file.read(0, 6 * file.sample_rate)), RATE)


@pytest.fixture(scope="module", params=["podtool", "world"])
def engine(request: pytest.FixtureRequest) -> Any:
    try:
        return engines.load("conversion", request.param, EngineContext(store=ModelStore()))
    except (ModelError, EngineUnavailableError) as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")


@pytest.fixture(scope="module")
def voice(engine: Any, speech: Audio) -> Any:
    """From the reader to the reader with a shorter vocal tract and a higher pitch."""
    return engine.voice_map(engine.enrol([speech]), engine.enrol([higher(speech)]))


def higher(speech: Audio) -> Audio:
    return Audio(speech.samples, round(RATE * 1.2))


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_as_long_as_what_it_replaces_and_the_same_again(
    engine: Any, speech: Audio, rate: int
) -> None:
    heard = engine.enrol([resample(speech, rate)])  # as a recording of that rate sounds
    voice = engine.voice_map(heard, engine.enrol([higher(speech)]))
    piece = resample(speech.read(0, 2 * RATE + 7), rate)
    out, left = engine.convert_and_tell(piece, voice)
    assert (out.frames, out.sample_rate, out.channels) == (piece.frames, rate, 1)
    assert np.isfinite(out.samples).all() and 0 <= left < 0.3
    level = np.sqrt(np.mean(out.samples**2) / np.mean(piece.samples**2))
    assert 0.5 < level < 2 and not np.allclose(out.samples, piece.samples, atol=0.01)
    assert np.array_equal(engine.convert(piece, voice).samples, out.samples)


def test_silence_nothing_and_next_to_nothing(engine: Any, voice: Any, speech: Audio) -> None:
    silence = Audio(np.zeros((1, RATE), np.float32), RATE)
    assert np.abs(engine.convert(silence, voice).samples).max() < 1e-3
    for frames in (0, 1, 160, 1000):
        assert engine.convert(speech.read(0, frames), voice).frames == frames


def test_a_voice_is_its_state_file(engine: Any, speech: Audio, tmp_path: Path) -> None:
    made = engine.enrol([speech.read(0, 3 * RATE), speech.read(3 * RATE)])
    made.save(tmp_path / "voice.safetensors")
    back = SpeechProfile.load(tmp_path / "voice.safetensors")
    assert back.digest() == made.digest()
    piece = speech.read(0, RATE)
    takes = [engine.convert(piece, engine.voice_map(made, v)).samples for v in (made, back)]
    assert np.array_equal(*takes)
