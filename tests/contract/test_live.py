"""The live pipeline with its real engines: however real speech is cut, the rows are the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool import demo
from podtool.artifacts import Partial, Row, Utterance
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.errors import ModelError
from podtool.live.loading import load
from podtool.live.pipeline import LiveEngines, LiveParams, Pipeline
from podtool.resample import resample
from podtool.rowio import encode, of_kind
from podtool.store import ModelStore

pytestmark = [pytest.mark.models, pytest.mark.slow]


@pytest.fixture(scope="module")
def engines() -> LiveEngines:
    try:
        return load(EngineContext(ModelStore(), threads=1), LiveParams())[0]
    except ModelError as error:
        pytest.skip(f"{error.message}: {error.hint}")


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    """Twelve seconds of the demo's episode, 16 kHz mono."""
    store = ModelStore()
    try:
        made = demo.build(store.folder("demo-recordings"), store.folder("demo-voice"))
    except ModelError as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")
    rate = made.episode.sample_rate
    part = Audio(made.episode.samples[:, 4 * rate : 16 * rate], rate)
    mono: NDArray[np.float32] = resample(part, 16000).samples.mean(0)
    return mono


def test_however_real_speech_is_cut(engines: LiveEngines, speech: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(4)
    cuts = np.sort(rng.integers(0, len(speech), 200))

    def rows(pieces: list[NDArray[np.float32]]) -> list[Row]:
        pipeline = Pipeline(engines)
        return [*(r for p in pieces for r in pipeline.push(p)), *pipeline.end()]

    once = rows([speech])
    assert of_kind(once, Partial) and len(of_kind(once, Utterance)) >= 2
    assert [encode(r) for r in rows(np.split(speech, cuts))] == [encode(r) for r in once]
