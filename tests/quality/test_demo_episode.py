"""Floors on real speech that every machine has: the demo's episode, made of public readings.

A change that costs quality fails here; one that gains should raise the floor. The figures are
printed (`pytest -s`), with more of them in docs/figures.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from podtool import demo, engines, metrics
from podtool.artifacts import Recording, Row, Turn, Utterance
from podtool.audio import Audio, AudioFile, open_audio
from podtool.engines.protocols import EngineContext
from podtool.errors import ModelError
from podtool.inputs import recording_of
from podtool.pipeline import diarize_file, transcribe_file
from podtool.resample import at_rate
from podtool.rowio import of_kind
from podtool.segments import Span
from podtool.stages.diarize import DiarizeParams
from podtool.stages.separate import separate
from podtool.stages.transcribe import TranscribeParams
from podtool.store import ModelStore

pytestmark = [pytest.mark.models, pytest.mark.slow]
CONTEXT = EngineContext(store=ModelStore())


@dataclass(frozen=True)
class Episode:
    truth: demo.Demo
    path: Path
    voice: Path
    recording: Recording
    audio: AudioFile


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    store = ModelStore()
    try:
        truth = demo.build(store.folder("demo-recordings"), store.folder("demo-voice"))
    except ModelError as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")
    paths = demo.write(truth, tmp_path_factory.mktemp("demo"))
    audio = open_audio(paths["episode"])
    recording = recording_of(paths["episode"], audio)
    return Episode(truth, paths["episode"], paths["voice"], recording, audio)


@pytest.fixture(scope="module")
def diarization(episode: Episode) -> list[Row]:
    return diarize_file(episode.audio, episode.recording, CONTEXT, DiarizeParams())


def test_who_speaks_when(episode: Episode, diarization: Sequence[Row]) -> None:
    score = metrics.diarization(episode.truth.turns, of_kind(diarization, Turn))
    print(f"demo DER {score.der:.3f}, {score.found_speakers} speakers")
    assert score.found_speakers == 2
    assert score.der < 0.05


def test_the_same_rows_again(episode: Episode, diarization: Sequence[Row]) -> None:
    assert diarize_file(episode.audio, episode.recording, CONTEXT, DiarizeParams()) == diarization


def test_who_says_what(episode: Episode, diarization: Sequence[Row]) -> None:
    rows = transcribe_file(
        episode.audio, episode.recording, diarization, CONTEXT, TranscribeParams()
    )
    found = of_kind(rows, Utterance)
    score = metrics.cp_word_errors(episode.truth.utterances, found)
    print(f"demo cpWER {score.rate:.3f}")
    assert score.rate < 0.15
    words = [w for u in found for w in u.words or ()]
    assert len(words) > 100
    assert all(w.end > w.start for w in words)


def test_speech_from_music(episode: Episode) -> None:
    truth = episode.truth
    engine = engines.load("separation", "spectral", CONTEXT)
    speech_spans = [Span(t.start, t.end) for t in truth.turns]
    blocks = list(separate(episode.audio, engine, speech_spans))
    found = Audio(np.concatenate([b.speech.samples for b in blocks], axis=1), 44100)
    clean = Audio(truth.readers[0].samples + truth.readers[1].samples, 44100)
    before = metrics.si_sdr(clean, truth.episode)
    after = metrics.si_sdr(clean, found)
    print(f"demo SI-SDR {before:.1f} -> {after:.1f} dB")
    assert after > before + 1.0
    for block in blocks:
        total = block.speech.samples + block.background.samples
        assert np.array_equal(total, block.mixture.samples)


def test_one_voice_from_another(episode: Episode) -> None:
    """CAM++ finds a reader closer to themselves than to anybody else."""
    engine = engines.load("embedding", "campplus", CONTEXT)
    first, second, other = (
        engine.embed(at_rate(a, 16000).read())
        for a in (*episode.truth.readers, episode.truth.voice)
    )
    between = max(
        metrics.similarity(first, second),
        metrics.similarity(first, other),
        metrics.similarity(second, other),
    )
    half = episode.truth.readers[0].frames // 2
    halves = [
        engine.embed(at_rate(a, 16000).read())
        for a in (
            episode.truth.readers[0].read(0, half),
            episode.truth.readers[0].read(half),
        )
    ]
    within = metrics.similarity(*halves)
    print(f"demo similarity: same reader {within:.2f}, different at most {between:.2f}")
    assert within > between + 0.2
