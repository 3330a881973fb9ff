"""eSpeak NG in a process of its own: samples, word events, errors, survival."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.artifacts import Utterance
from podtool.engines.alignment_pocketsphinx import PocketSphinxAligner
from podtool.engines.protocols import EngineContext, WorkerParams
from podtool.errors import ConfigError, EngineFailure, ModelError
from podtool.resample import resample
from podtool.stages.speak import speak

pytest.importorskip("espeakng_loader")
TEXT = "She opened the window, looked at the street, and closed it again."


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


@pytest.fixture()
def engine() -> Iterator[Any]:
    loaded = engines.load("speaking", "espeak", EngineContext(NoStore()))
    yield loaded
    loaded.close()


def test_speech_with_a_time_for_every_word(engine: Any) -> None:
    audio, words = engine.speak_with_events(TEXT)
    assert audio.sample_rate == 22050 and 2 < audio.duration < 6
    assert float(np.abs(audio.samples).max()) > 0.05
    assert [w.text for w in words] == TEXT.split()
    assert words[0].start < 0.2
    assert all(w.start < w.end <= audio.duration for w in words)
    assert all(a.end <= b.start + 1e-9 for a, b in zip(words, words[1:], strict=False))
    again, _ = engine.speak_with_events(TEXT)
    assert np.array_equal(audio.samples, again.samples)


def test_faster_is_shorter_and_empty_is_empty(engine: Any) -> None:
    lengths = [next(engine.speak(TEXT, rate, 0)).duration for rate in (0.7, 1.0, 1.5)]
    assert lengths[0] > 1.2 * lengths[1] > 1.2 * 1.2 * lengths[2]
    assert engine.speak_with_events("  ")[0].frames == 0
    assert engine.speak_with_events("$5 \u2014 caf\u00e9")[0].frames > 0


def test_the_library_stays_out_of_this_process(engine: Any) -> None:
    engine.speak_with_events("Hello.")
    assert "espeakng_loader" not in {
        name for name in sys.modules if getattr(sys.modules[name], "_library", None)
    }
    if sys.platform == "linux":
        assert "libespeak" not in Path("/proc/self/maps").read_text()


def test_an_unknown_voice_is_an_error_and_the_process_goes_on(engine: Any) -> None:
    with pytest.raises(ConfigError, match="xx-nobody"):
        engine.speak_with_events("Hello.", 1.0, "xx-nobody")
    assert engine.speak_with_events("Hello.")[0].frames > 0


def test_a_process_that_dies_is_started_again_and_one_that_hangs_is_an_error(engine: Any) -> None:
    engine.speak_with_events("Hello.")
    os.kill(engine.pid, signal.SIGKILL)
    assert engine.speak_with_events("Hello.")[0].frames > 0
    hasty = EngineContext(NoStore(), worker=WorkerParams(isolate="never", timeout_s=0.001))
    with pytest.raises(EngineFailure, match="longer than"):
        engines.load("speaking", "espeak", hasty).speak_with_events(TEXT * 200)


def test_word_events_agree_with_forced_alignment(engine: Any) -> None:
    pytest.importorskip("pocketsphinx")
    audio, events = engine.speak_with_events(TEXT)
    aligner = PocketSphinxAligner.load(EngineContext(NoStore()))
    placed = aligner.align(resample(audio, 16000), TEXT.split())
    errors = [
        abs(p.start - e.start) for p, e in zip(placed, events, strict=True) if not e.interpolated
    ]
    print(f"word starts: {1000 * np.mean(errors):.0f} ms on average")
    assert len(errors) > 8 and np.mean(errors) < 0.06


def test_unedited_text_is_spoken_without_drift(engine: Any) -> None:
    row = Utterance("u1", "r", 2.0, 5.6, TEXT, "S1")
    take = speak([row], [], 20.0, engine, sample_rate=44100)[0]
    assert take.fits and abs(take.first_word_drift_ms) <= 50
    assert abs(take.last_word_drift_ms) <= 50
