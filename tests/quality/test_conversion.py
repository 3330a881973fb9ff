"""Floors of conversion on real speech that every machine has: the demo's readings.

Similarity must rise without the words or the sound being lost. Figures are printed (`pytest -s`);
those on ten pairs of people stand in docs/figures.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool import engines
from podtool.artifacts import Turn
from podtool.audio import Audio, open_audio
from podtool.demo.music import bed
from podtool.engines.protocols import EngineContext
from podtool.errors import InputError, ModelError
from podtool.metrics import word_errors
from podtool.resample import resample, to_mono
from podtool.segments import Span
from podtool.stages.clone import clone, with_reference_checks
from podtool.stages.convert import analyse_speaker, convert
from podtool.store import ModelStore
from podtool.text import normalise

pytestmark = [pytest.mark.models, pytest.mark.slow]
CONTEXT = EngineContext(store=ModelStore(), threads=2)
RATE = 16000


def loaded(stage: str, name: str) -> Any:
    try:
        return engines.load(stage, name, CONTEXT)
    except ModelError as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")


@pytest.fixture(scope="module")
def readers() -> tuple[Audio, Audio]:
    """The reader of A Tale of Two Cities and the reader of Sense and Sensibility, 16 kHz."""
    try:
        folder = ModelStore().folder("demo-recordings")
    except ModelError as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")

    def read(name: str) -> Audio:
        with open_audio(folder / name) as file:
            return resample(to_mono(file.read()), RATE)

    parts = [read(p.name).samples for p in sorted(folder.glob("austen-*.wav"))]
    return read("two_cities.wav"), Audio(np.concatenate(parts, axis=1), RATE)


@pytest.mark.parametrize("engine", ["podtool", "world"])
def test_similarity_rises_and_the_words_stay(readers: tuple[Audio, Audio], engine: str) -> None:
    source, target = readers
    converter = loaded("conversion", engine)
    judges = {n: loaded("embedding", n) for n in ("campplus", "ge2e")}
    recogniser = loaded("transcription", "moonshine")

    # The last clips of the target are kept from the voice and judge it.
    unseen = target.read(target.frames - 6 * RATE)
    enrolled = target.read(0, target.frames - 6 * RATE)
    voice = clone(
        enrolled, "r", [Turn("t", "r", 0.0, enrolled.duration, "S1")], "S1", converter
    ).profile
    profile = analyse_speaker(source, [Span(0.0, source.duration)], converter)
    mapping = converter.voice_map(profile, voice)
    turns = [Turn(f"t{k}", "s", 8.0 * k, 8.0 * k + 8.0, "S1") for k in range(2)]
    takes = list(convert(source, turns, converter, mapping))

    def vector(judge: Any, audio: Audio) -> NDArray[np.float64]:
        return np.asarray(judge.embed(audio), np.float64)

    before = source.read(0, 16 * RATE)
    after = Audio(np.concatenate([t.audio.read().samples for t in takes], axis=1), RATE)
    assert after.frames == before.frames
    assert all(t.checks["first_word_drift_ms"] == 0 for t in takes)
    for name, judge in judges.items():
        then = float(vector(judge, before) @ vector(judge, unseen))
        now = float(vector(judge, after) @ vector(judge, unseen))
        itself = float(vector(judge, after) @ vector(judge, before))
        print(f"{name}: {then:.3f} -> {now:.3f}, to the source {itself:.3f}")
        assert now > then + FLOORS[name]
        assert itself < 0.9

    def text(audio: Audio) -> str:
        return normalise(" ".join(u.text for u in recogniser.transcribe(audio, "en")))

    wer = word_errors(text(before), text(after)).rate
    print(f"wer against the reading of the source: {wer:.3f}")
    assert wer <= 0.3


FLOORS = {"campplus": 0.05, "ge2e": 0.05}  # least gain in similarity


def test_real_speech_over_music_is_no_reference(readers: tuple[Audio, Audio]) -> None:
    speech = readers[1]
    turns = [Turn("t", "r", 0.0, speech.duration, "S1")]
    assert with_reference_checks(speech, turns)[0] == "S1"
    tune = to_mono(bed(speech.duration, RATE, seed=3)).samples[:, : speech.frames]
    gain = np.sqrt(np.mean(speech.samples**2) / np.mean(tune**2)) * 10 ** (-8 / 20)
    mixed = Audio((speech.samples + gain * tune).astype(np.float32), RATE)
    with pytest.raises(InputError, match="music"):
        with_reference_checks(mixed, turns)
