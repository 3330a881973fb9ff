"""Engines that step in: who is asked, at which rate, what the rows and the table say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from typer.testing import Result

from podtool import engines, provenance
from podtool.audio import Audio, open_audio
from podtool.engines.fallback import Fallback
from podtool.engines.protocols import EngineContext, EngineInfo, WorkerParams
from podtool.errors import ConfigError, EngineFailure, EngineUnavailableError
from podtool.inputs import recording_of
from podtool.rowio import encode
from podtool.store import ModelStore

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    names = {"trouble": "Trouble", "swedish": "Swedish", "slow-rate": "EightKilohertz"}
    table = {n: f"troublesome:{k}" for n, k in (names | {"good": "Good"}).items()}
    table |= {"absent": "no_such:Thing", "cursed": "troublesome:Cursed"}
    monkeypatch.setitem(engines.BUILTIN, "transcription", table)


def load(name: str, *fallback: str, trouble: str = "raise", isolate: Any = "never") -> Any:
    params = WorkerParams(isolate=isolate, fallback=fallback, timeout_s=30.0)
    context = EngineContext(ModelStore(), options={"trouble": trouble}, worker=params)
    engine = engines.load("transcription", name, context)
    if isinstance(engine, Fallback):
        assert engine.info.name == name
    return engine


def tone(level: float = 0.1) -> Audio:
    return Audio(np.full((1, 16000), level, np.float32), 16000)


def test_the_next_one_does_the_chunk_and_the_row_says_so() -> None:
    engine = load("trouble", "good")
    [row] = engine.transcribe(tone(0.2), "en")
    assert row.text == "level200" and row.extra == {"engine": "good"}
    assert engine.answered_by == "good"
    [incident] = engine._context.incidents
    assert (incident.engine, incident.instead) == ("trouble", "good")
    assert "device-side assert" in incident.reason


def test_an_engine_that_works_is_the_only_one_asked() -> None:
    engine = load("good", "trouble")
    [row] = engine.transcribe(tone(), "en")
    assert row.extra is None and list(engine._engines) == ["good"]


@pytest.mark.slow
def test_a_worker_that_crashes_twice_gives_way() -> None:
    engine = load("trouble", "good", trouble="segfault", isolate="auto")
    assert engine.transcribe(tone(), "en")[0].extra == {"engine": "good"}
    reasons = [(i.instead, i.reason) for i in engine._context.incidents]
    assert [r[0] for r in reasons] == ["trouble", "good"]
    assert all("SIGSEGV" in r[1] for r in reasons)
    engine.close()


def test_after_three_failures_it_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    engine = load("trouble", "good")
    for _ in range(5):
        engine.transcribe(tone(), "en")
    assert caplog.text.count("device-side assert") == 3
    assert "not asked again" in caplog.text
    assert len(engine._context.incidents) == 5


def test_audio_comes_at_the_rate_of_whoever_is_asked() -> None:
    [row] = load("trouble", "slow-rate").transcribe(tone(0.3), "en")
    assert row.text.startswith("level3") and row.end == pytest.approx(1.0)


def test_all_that_run_here_step_in_in_their_order() -> None:
    engine = load("trouble", "auto")
    assert engine._names == ["trouble", "swedish", "slow-rate", "good", "cursed"]
    [row] = engine.transcribe(tone(), "en")
    assert row.extra == {"engine": "slow-rate"}  # the Swedish one was asked, and refused


def test_where_all_fail_the_last_one_says_why() -> None:
    with pytest.raises(
        EngineFailure, match="every transcription engine fails: RuntimeError: CUDA"
    ) as raised:
        load("trouble", "trouble").transcribe(tone(), "en")
    assert raised.value.exit_code == 7


def test_a_request_that_is_wrong_is_not_handed_on() -> None:
    with pytest.raises(ConfigError, match="not en"):
        load("swedish", "good").transcribe(tone(), "en")


def test_an_engine_that_does_not_load_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    engine = load("trouble", "good", trouble="load-raise")
    assert engine.transcribe(tone(), "en")[0].extra == {"engine": "good"}
    with pytest.raises(EngineUnavailableError):
        load("absent", "good")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="no engine: godo"):
        load("trouble", "godo")
    assert isinstance(load("good", "silero"), Fallback)  # of another stage: not for this one


class Halves:
    """Separates by halving; its window and channels are not those of the first engine."""

    info: ClassVar[EngineInfo] = EngineInfo(
        "halves", "separation", "1", "MIT", "embedded", 16000, 1, window_s=0.5
    )
    stems = ("speech",)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def separate(self, audio: Audio) -> dict[str, Audio]:
        assert audio.channels == 1 and audio.frames <= 8000 and audio.sample_rate == 16000
        return {"speech": Audio(audio.samples * np.float32(0.5), audio.sample_rate)}


class Broken(Halves):
    info: ClassVar[EngineInfo] = EngineInfo(
        "broken", "separation", "1", "MIT", "embedded", 44100, 2, window_s=30.0
    )

    def separate(self, audio: Audio) -> dict[str, Audio]:
        return {"speech": Audio(audio.samples * np.float32("nan"), audio.sample_rate)}


def test_stems_come_back_at_the_first_engines_rate_and_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fallback_test", sys.modules[__name__])
    table = {"broken": "fallback_test:Broken", "halves": "fallback_test:Halves"}
    monkeypatch.setitem(engines.BUILTIN, "separation", table)
    context = EngineContext(ModelStore(), worker=WorkerParams(fallback=("auto",)))
    engine = engines.load("separation", "broken", context)
    t = np.arange(50_000) / 44100
    waves = np.stack([np.sin(900 * t), np.cos(700 * t)]) / 4
    audio = Audio(waves.astype(np.float32), 44100)
    stem = engine.separate(audio)["speech"]
    assert stem.samples.shape == audio.samples.shape and stem.sample_rate == 44100
    assert np.allclose(stem.samples[:, 500:-500], audio.samples[:, 500:-500] / 2, atol=2e-3)
    assert context.incidents[0].reason.endswith("NaN")


def test_the_provenance_tells_what_stepped_in() -> None:
    from podtool.engines.protocols import Incident

    context = EngineContext(ModelStore())
    info = engines.engine_class("transcription", "good").info
    parts = provenance.components("transcribe", context, {"transcription": info})
    restarted = Incident("transcription", "good", "it crashed", "good")
    stepped = Incident("transcription", "good", "it crashed twice", "slow-rate")
    elsewhere = Incident("separation", "a", "", "b")
    plain = provenance.provenance(parts, [restarted, elsewhere])
    assert plain.extra is None and plain == provenance.provenance(parts)
    told = provenance.provenance(parts, [restarted, stepped, stepped])
    assert told.key == plain.key and told.extra == {
        "degraded": [
            {"stage": "transcription", "engine": "good", "instead": "slow-rate", "times": 2}
        ]
    }


@pytest.mark.slow
@pytest.mark.models
def test_the_command_tells_it_in_rows_and_table(
    run: Callable[..., Result], tmp_path: Path, data: Path
) -> None:
    manifest = [json.loads(line) for line in (data / "MANIFEST.jsonl").open()]
    speech = data / next(r["path"] for r in manifest if r["path"].endswith("jfk.flac"))
    with open_audio(speech) as audio:
        row = encode(recording_of(speech, audio))
    turn = {"kind": "turn", "v": 1, "id": "t1", "recording": json.loads(row)["id"], "start": 0.2}
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{row}\n{json.dumps({**turn, 'end': 10.5, 'speaker': 'S1'})}\n")

    plain = run("transcribe", rows, "--engine", "good", "--align", "own")
    assert plain.exit_code == 0 and "Engines that failed" not in plain.stderr
    cursed = ["transcribe", rows, "--engine", "cursed", "--align", "own"]
    ended = run(*cursed)
    assert ended.exit_code == 7 and "SIGSEGV" in ended.stderr
    assert "started again" in ended.stderr and ended.stdout == ""
    done = run(*cursed, "--fallback", "good")
    assert done.exit_code == 0, done.stderr
    assert "Engines that failed" in done.stderr and "good stepped in" in done.stderr
    told, read = [
        [r for r in map(json.loads, text.splitlines()) if r["kind"] in ("provenance", "utterance")]
        for text in (plain.stdout, done.stdout)
    ]
    assert [r["text"] for r in read if r["kind"] == "utterance"] == [
        r["text"] for r in told if r["kind"] == "utterance"
    ]
    assert all(r["extra"]["engine"] == "good" for r in read if r["kind"] == "utterance")
    assert read[0]["extra"]["degraded"][0]["instead"] == "good"
    assert "extra" not in told[0]
