"""Rows of what an engine hears that reads the whole recording at once."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines.contract import check
from podtool.engines.protocols import EngineContext, EngineInfo, VoiceSpan
from podtool.errors import EngineFailure, InputError
from podtool.stages.diarize import DiarizeParams
from podtool.stages.diarize_whole import diarize_whole


class Heard:
    """An engine that answers what it was made with."""

    info: ClassVar[EngineInfo] = EngineInfo("heard", "diarization", "1", "MIT", "best", 16000)
    counts = False

    def __init__(self, *spans: VoiceSpan) -> None:
        self.spans = list(spans)
        self.asked: tuple[Any, ...] = ()

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def diarize(self, audio: Audio, least: int, most: int) -> list[VoiceSpan]:
        self.asked = (audio.sample_rate, audio.channels, audio.frames, least, most)
        return self.spans


class Loudness:
    """An embedding that is a clip's mean and length: enough to see which clip it was."""

    info: ClassVar[EngineInfo] = EngineInfo("loudness", "embedding", "1", "MIT", "best", 8000)
    dim = 2

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def embed(self, audio: Audio) -> Any:
        return np.array([audio.samples.mean(), audio.duration], np.float32)


def recording(rate: int = 48000) -> Audio:
    """Stereo; at second n the samples are n / 10."""
    levels = np.repeat(np.arange(10) / 10, rate).astype(np.float32)
    return Audio(np.tile(levels, (2, 1)), rate)


SPANS = (
    VoiceSpan(4.0, 6.0, 7),  # heard first of the two below, whatever their numbers
    VoiceSpan(5.0, 8.0, 2),
    VoiceSpan(8.5, 9.5, 2),  # within the gap that is filled
    VoiceSpan(9.9, 12.0, 9),  # too short within the recording
    VoiceSpan(3.0, 3.0, 4),  # nothing
)


def test_rows() -> None:
    engine = Heard(*SPANS)
    found = diarize_whole(recording(), "talk", engine, Loudness(), DiarizeParams())
    assert engine.asked == (16000, 1, 160000, 1, 20)
    assert [(t.id, t.start, t.end, t.speaker) for t in found.turns] == [
        ("t0001", 4.0, 6.0, "S1"),
        ("t0002", 5.0, 9.5, "S2"),
    ]
    assert [(s.start, s.end, s.label) for s in found.overlaps] == [(5.0, 6.0, "overlap")]
    first, second = found.speakers
    assert (first.speech_s, first.overlap_s) == (2.0, 1.0)
    assert (second.speech_s, second.overlap_s) == (4.5, 1.0)
    assert first.embedding is not None and first.embedding.model == "loudness"
    # Each is embedded where it is alone: 4 to 5 s, and 6 to 9.5 s.
    assert first.embedding.vector == pytest.approx((0.4, 1.0), abs=1e-2)
    assert second.embedding is not None
    assert second.embedding.vector[1] == pytest.approx(3.5, abs=1e-3)


def test_a_voice_that_is_never_alone_is_embedded_all_the_same() -> None:
    engine = Heard(VoiceSpan(1.0, 3.0, 0), VoiceSpan(1.0, 3.0, 1))
    found = diarize_whole(recording(8000), "talk", engine, Loudness(), DiarizeParams())
    assert [s.embedding.vector[1] for s in found.speakers if s.embedding] == [2.0, 2.0]


def test_nobody_is_heard() -> None:
    found = diarize_whole(recording(8000), "talk", Heard(), Loudness(), DiarizeParams())
    assert (found.turns, found.overlaps, found.speakers) == ((), (), ())


def test_enrolled_people_are_named() -> None:
    known = {"Ann": np.array([0.0, 1.0], np.float32)}
    engine = Heard(VoiceSpan(0.0, 1.0, 0))
    found = diarize_whole(recording(8000), "talk", engine, Loudness(), DiarizeParams(), known)
    assert [s.name for s in found.speakers] == ["Ann"]


def test_how_many_there_are_is_told_to_those_who_count() -> None:
    two = DiarizeParams(speakers=2)
    engine = Heard()
    with pytest.raises(InputError, match="heard cannot be told"):
        diarize_whole(recording(8000), "talk", engine, Loudness(), two)
    engine.counts = True
    diarize_whole(recording(8000), "talk", engine, Loudness(), two)
    assert engine.asked[3:] == (2, 2)


def test_an_engine_that_fails() -> None:
    class Broken(Heard):
        def diarize(self, audio: Audio, least: int, most: int) -> list[VoiceSpan]:
            raise RuntimeError("out of voices")

    with pytest.raises(EngineFailure, match="heard failed: out of voices"):
        diarize_whole(recording(8000), "talk", Broken(), Loudness(), DiarizeParams())


@pytest.mark.parametrize(
    "answer",
    [
        [(0.0, 1.0, 0)],
        [VoiceSpan(0.0, 11.0, 0)],
        [VoiceSpan(2.0, 1.0, 0)],
        [VoiceSpan(0.0, float("nan"), 0)],
        [VoiceSpan(0.0, 1.0, -1)],
        None,
    ],
)
def test_nonsense_of_a_worker_is_refused(answer: Any) -> None:
    with pytest.raises(EngineFailure, match="nonsense"):
        check(Heard.info, "diarize", (recording(8000), 1, 20), answer)
    fine = [VoiceSpan(0.0, 10.0, 0), VoiceSpan(2.0, 3.0, 1)]
    assert check(Heard.info, "diarize", (recording(8000), 1, 20), fine) == fine


def test_a_file_is_diarized_by_the_engine_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from podtool import pipeline
    from podtool.artifacts import Provenance, Recording, Segment, Speaker, Turn

    made: dict[str, Any] = {"diarization": Heard(*SPANS), "embedding": Loudness()}
    loaded: list[tuple[str, str, float]] = []

    def load(stage: str, name: str, context: EngineContext) -> Any:
        loaded.append((stage, name, context.worker.timeout_s))
        return made[stage]

    monkeypatch.setattr(pipeline, "load", load)
    monkeypatch.setattr(pipeline, "engine_info", lambda stage, name, context: made[stage].info)
    audio = recording(100)
    row = Recording("talk", "talk.wav", "0" * 64, 100, 2, audio.frames)
    context = EngineContext(store=None)  # type: ignore[arg-type]
    long = Audio(np.zeros((1, 100 * 600), np.float32), 100)
    rows = pipeline.diarize_file(audio, row, context, DiarizeParams(engine="heard"))
    assert [type(r) for r in rows] == [Provenance, Turn, Turn, Segment, Speaker, Speaker]
    assert isinstance(rows[0], Provenance) and "heard 1" in (rows[0].engine or "")
    assert loaded == [("diarization", "heard", 300.0), ("embedding", "campplus", 300.0)]
    loaded.clear()
    made["diarization"] = Heard()
    pipeline.diarize_file(long, row, context, DiarizeParams(engine="heard"))
    assert loaded[0] == ("diarization", "heard", 1800.0)  # the recording has ten minutes
