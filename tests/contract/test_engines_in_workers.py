"""Every engine that runs here answers the same in a worker, also after the worker was killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.artifacts import Utterance
from podtool.audio import Audio, open_audio
from podtool.engines.contract import check
from podtool.engines.protocols import EngineContext, WorkerParams
from podtool.engines.worker import Worker, must_isolate
from podtool.resample import resample
from podtool.store import ModelStore

pytestmark = [pytest.mark.models, pytest.mark.slow]
HERE = EngineContext(ModelStore(), threads=1, worker=WorkerParams(isolate="never"))
APART = replace(HERE, worker=WorkerParams(isolate="always"), incidents=[])
CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "vad": ("detect", ()),
    "segmentation": ("activity", ()),
    "embedding": ("embed", ()),
    "separation": ("separate", ()),
    "talkers": ("talkers", (2,)),
    "transcription": ("transcribe", ("en",)),
    "alignment": ("align", (["Ask", "not", "$5"],)),
}
ALL = [(s, n) for s in engines.BUILTIN for n in engines.BUILTIN[s]]


@pytest.fixture(scope="module")
def speech(data: Path) -> Audio:
    """Four seconds of real speech at 16 kHz, mono."""
    path = next(data.rglob("jfk.flac"), None)
    if path is None:
        pytest.skip("no jfk.flac among the recordings")
    with open_audio(path) as file:
        return resample(file.read(0, 4 * file.sample_rate), 16000)


def inputs(speech: Audio, info: Any) -> Iterator[Audio]:
    rate = info.sample_rate or 44100
    heard = resample(speech, rate)
    rng = np.random.default_rng(0)
    for samples in (
        heard.samples,
        heard.samples[:, : rate // 100],
        np.zeros((1, rate // 2), np.float32),
        rng.normal(0, 0.1, (1, rate)).astype(np.float32),
    ):
        yield Audio(np.tile(samples, (max(1, info.channels), 1)), rate)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, Audio):
        return a.sample_rate == b.sample_rate and same(a.samples, b.samples)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and a and not isinstance(a[0], Utterance):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.fixture()
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Worker]]:
    stage, name = request.param
    status = engines.availability(stage, name, HERE)
    if not status.available or status.info is None:
        pytest.skip(f"{name}: {status.reason}")
    inside = engines.load(stage, name, HERE)
    assert isinstance(inside, Worker) == must_isolate(status.info)
    with engines.load(stage, name, APART) as apart:
        yield inside, apart


@pytest.mark.parametrize("pair", [a for a in ALL if a[0] in CALLS], indirect=True, ids="-".join)
def test_the_same_answers(pair: tuple[Any, Worker], speech: Audio) -> None:
    inside, apart = pair
    method, more = CALLS[inside.info.stage]
    for audio in inputs(speech, inside.info):
        answer = getattr(apart, method)(audio, *more)
        assert same(answer, getattr(inside, method)(audio, *more))
        check(inside.info, method, (audio, *more), answer)
    before = apart.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    first = next(inputs(speech, inside.info))
    assert same(getattr(apart, method)(first, *more), getattr(inside, method)(first, *more))
    assert apart.pid != before
    for name in ("dim", "stems", "grid", "max_talkers"):
        assert getattr(apart, name, None) == getattr(inside, name, None)


@pytest.mark.parametrize("pair", [a for a in ALL if a[0] == "speaking"], indirect=True)
def test_speaking(pair: tuple[Any, Worker]) -> None:
    inside, apart = pair
    blocks = [list(e.speak("Ask not what.", 1.0, 0)) for e in pair]
    assert same(*blocks) and check(inside.info, "speak", (), blocks[1])
    if hasattr(inside, "speak_with_events"):
        assert apart.speak_with_events("Ask not.")[1] == inside.speak_with_events("Ask not.")[1]


@pytest.mark.parametrize("pair", [("conversion", "world")], indirect=True)
def test_conversion(pair: tuple[Any, Worker], speech: Audio) -> None:
    """Maps from voice to voice stay in the worker, and are made again in the next one."""
    maps = []
    for engine in pair:
        own = engine.enrol([speech])
        higher = engine.enrol([Audio(speech.samples, 19000)])
        maps.append(engine.voice_map(own, higher))
    inside, apart = (e.convert(speech, m) for e, m in zip(pair, maps, strict=True))
    assert same(inside, apart) and apart.samples.shape == speech.samples.shape
    assert maps[0].warnings == maps[1].warnings and maps[0].bands == maps[1].bands
    os.kill(pair[1].pid or 0, signal.SIGKILL)
    assert same(pair[1].convert(speech, maps[1]), inside)
