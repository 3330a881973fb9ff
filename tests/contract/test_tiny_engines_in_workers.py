"""Engines of the larger tiers through a worker, on the tiny checkpoints of their own tests."""

from __future__ import annotations

import importlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, WorkerParams
from podtool.engines.worker import Worker

pytestmark = pytest.mark.slow


class Folder:
    """A store that has one folder for everything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, model_id: str) -> Path:
        return self.path


def of(test: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of another test, whose checkpoint is used here."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module(test)


def agree(
    stage: str, name: str, context: EngineContext, method: str, *args: Any, within: float = 0.0
) -> None:
    """The same answer in process and in a worker, also in the one after it was killed."""
    inside = plain(getattr(engines.engine_class(stage, name).load(context), method)(*args))
    with engines.load(stage, name, context) as apart:
        assert isinstance(apart, Worker)  # by default, since none of them is embedded
        for _ in range(2):
            answer = plain(getattr(apart, method)(*args))
            if isinstance(inside, np.ndarray):
                assert inside.shape == answer.shape and inside.any()
                assert float(np.abs(inside - answer).max()) <= within
            else:
                assert inside == answer and inside
            os.kill(apart.pid or 0, signal.SIGKILL)


def plain(answer: Any) -> Any:
    return answer["speech"].samples if isinstance(answer, dict) else answer


def test_demucs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("demucs")
    tests = of("test_demucs", monkeypatch)
    tests.save(tmp_path, tests.tiny())
    (tmp_path / "htdemucs.yaml").write_text("models: ['abcd1234']\nsegment: 1\n")
    context = EngineContext(Folder(tmp_path), threads=1)
    # Threads of the two processes add up in another order.
    agree("separation", "demucs", context, "separate", tests.noise(1.5, 2, 44100), within=1e-5)


def test_ecapa(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    tests = of("test_ecapa", monkeypatch)
    folder = tests.checkpoint.__wrapped__(tmp_path_factory)
    context = EngineContext(Folder(folder), threads=1)
    agree("embedding", "ecapa", context, "embed", tests.voice(1), within=1e-6)


def test_mlx_whisper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlx_whisper")
    tests = of("test_mlx_whisper", monkeypatch)
    tests.write_model(tmp_path / "tiny")
    options = {"model": str(tmp_path / "tiny")}
    context = EngineContext(tests.NoStore(), options=options)
    agree("transcription", "mlx-whisper", context, "transcribe", tests.speech(2.0), "en")
    never = replace(context, worker=WorkerParams(isolate="never"))
    with engines.load("transcription", "mlx-whisper", never) as engine:
        assert isinstance(engine, Worker)  # whatever is asked
        assert engine.transcribe(Audio(np.zeros((1, 16000), np.float32), 16000), "en") == []
