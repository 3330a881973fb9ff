"""What every engine of a stage must keep, asked of each one that runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.errors import EngineUnavailableError
from podtool.store import ModelStore

pytestmark = pytest.mark.models
CONTEXT = EngineContext(store=ModelStore(), threads=1)


def all_of(stage: str) -> list[str]:
    return engines.engine_names(stage)


def loaded(stage: str, name: str) -> Any:
    status = engines.availability(stage, name, CONTEXT)
    if not status.available:
        pytest.skip(f"{name}: {status.reason}")
    return engines.load(stage, name, CONTEXT)


def voiced(seconds: float, rate: int, channels: int = 1) -> Audio:
    """A buzz with a moving formant: enough of a voice to exercise an engine."""
    t = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))
    wave = 0.05 * buzz * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return Audio(np.tile(wave.astype(np.float32), (channels, 1)), rate)


def inputs(rate: int) -> list[Audio]:
    rate = rate or 16000
    silence = Audio(np.zeros((1, rate), np.float32), rate)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, rate)).astype(np.float32)
    return [voiced(3.0, rate), voiced(0.01, rate), silence, Audio(noise, rate)]


@pytest.mark.parametrize("stage", sorted(engines.BUILTIN))
def test_every_engine_has_its_facts(stage: str) -> None:
    for name in all_of(stage):
        info = engines.engine_class(stage, name).info
        assert (info.name, info.stage) == (name, stage)
        assert info.licence and info.tier in ("embedded", "standard", "best")
        assert info.runtimes


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(EngineUnavailableError, match="no vad engine 'sliero'"):
        engines.load("vad", "sliero", CONTEXT)
    with pytest.raises(EngineUnavailableError, match="no stage"):
        engines.engine_names("juggling")


@pytest.mark.parametrize("name", all_of("vad"))
def test_vad(name: str) -> None:
    engine = loaded("vad", name)
    for audio in inputs(engine.info.sample_rate):
        spans = engine.detect(audio)
        assert spans == engine.detect(audio)
        assert all(0 <= s.start < s.end <= audio.duration + 0.1 for s in spans)
    assert engine.detect(inputs(engine.info.sample_rate)[2]) == []


@pytest.mark.parametrize("name", all_of("segmentation"))
def test_segmentation(name: str) -> None:
    engine = loaded("segmentation", name)
    for audio in inputs(engine.info.sample_rate):
        activity = engine.activity(audio)
        assert activity.ndim == 2 and np.isfinite(activity).all()
        assert np.array_equal(activity, engine.activity(audio))
        if len(activity):
            assert np.allclose(activity.sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("name", all_of("embedding"))
def test_embedding(name: str) -> None:
    engine = loaded("embedding", name)
    for audio in inputs(engine.info.sample_rate):
        vector = engine.embed(audio)
        assert vector.shape == (engine.dim,) and vector.dtype == np.float32
        assert np.isfinite(vector).all()
        assert abs(float(np.linalg.norm(vector)) - 1) < 1e-3
        assert np.array_equal(vector, engine.embed(audio))


@pytest.mark.parametrize("name", all_of("separation"))
def test_separation(name: str) -> None:
    engine = loaded("separation", name)
    rate = engine.info.sample_rate or 44100
    for audio in [*inputs(rate), voiced(2.0, rate, channels=2)]:
        stems = engine.separate(audio)
        assert "speech" in stems
        for stem in stems.values():
            assert stem.samples.shape == audio.samples.shape
            assert stem.sample_rate == rate and np.isfinite(stem.samples).all()


@pytest.mark.parametrize("name", all_of("transcription"))
def test_transcription(name: str) -> None:
    engine = loaded("transcription", name)
    rate = engine.info.sample_rate
    for audio in inputs(rate):
        for utterance in engine.transcribe(audio, "en"):
            assert 0 <= utterance.start <= utterance.end <= audio.duration + 0.5
    silence = inputs(rate)[2]
    assert "".join(u.text for u in engine.transcribe(silence, "en")).strip() == ""


@pytest.mark.parametrize("name", all_of("alignment"))
def test_alignment(name: str) -> None:
    engine = loaded("alignment", name)
    audio = voiced(2.0, engine.info.sample_rate)
    words = ["hello", "Zwischbrumpf", "$3.50", "it's"]
    placed = engine.align(audio, words)
    assert [w.text for w in placed] == words
    assert all(0 <= w.start <= w.end <= audio.duration + 1e-6 for w in placed)
    assert engine.align(audio, []) == []


@pytest.mark.parametrize(
    ("device", "torch_device"), [("cuda", "cuda"), ("mps", "mps"), ("cpu", "cpu"), ("mlx", "cpu")]
)
def test_where_torch_works(tmp_path: Path, device: str, torch_device: str) -> None:
    assert EngineContext(ModelStore(tmp_path), device=device).torch_device == torch_device
