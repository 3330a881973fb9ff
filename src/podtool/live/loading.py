"""The engines of a live session, loaded once: which of them run here, and what is left out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from podtool import engines, provenance
from podtool.artifacts import Provenance
from podtool.audio import Audio
from podtool.engines.protocols import AlignmentEngine, EngineContext, EngineInfo
from podtool.errors import EngineUnavailableError, PodtoolError
from podtool.live.parting import Careful
from podtool.live.pipeline import LiveEngines, LiveParams
from podtool.live.readers import RATE, EngineReader, MoonshineReader, Reader
from podtool.live.status import Samples

if TYPE_CHECKING:
    from podtool.engines.separation_podtool import Network, TalkerStream

log = logging.getLogger(__name__)


class OneVoice:
    """The causal network of speech and background as a stream of speech alone."""

    def __init__(self, network: Network) -> None:
        from podtool.engines.separation_podtool import TalkerStream

        self._stream = TalkerStream(network, 1)

    def push(self, block: Samples) -> Samples:
        voice: Samples = self._stream.push(block)[0]
        return voice

    def flush(self) -> Samples:
        voice: Samples = self._stream.flush()[0]
        return voice


def load(
    context: EngineContext, params: LiveParams, engine: str = "auto"
) -> tuple[LiveEngines, list[str]]:
    """The engines, and what is missing that would make it better, a line each.

    `engine` is a recogniser's name. Raises EngineUnavailableError, ModelError.
    """
    from podtool.engines.embedding_campplus import CamPlusPlus
    from podtool.engines.segmentation_pyannote import PyannoteSegmentation
    from podtool.engines.vad_silero import SileroVad

    missing: list[str] = []
    one = EngineContext(context.store, context.device, 1, context.options)
    reader = _reader(one, params, engine)
    separator: Callable[[int], TalkerStream] | None = None
    careful: Careful | None = None
    denoiser: Callable[[], OneVoice] | None = None
    if params.denoise:
        network = _network(one, "podtool-background", missing)
        if network is not None:
            denoiser = partial(OneVoice, network)
    if params.separate:
        talkers = _network(one, "podtool-talkers-streaming", missing)
        if talkers is not None:
            separator = _separator(talkers)
        talkers = _network(one, "podtool-talkers", missing)
        if talkers is not None:
            careful = _careful(talkers)

    found = LiveEngines(
        SileroVad.load(one),
        PyannoteSegmentation.load(one),
        CamPlusPlus.load(one),
        reader,
        denoiser,
        separator,
        careful,
    )
    return found, missing


def made_by(
    context: EngineContext,
    loaded: LiveEngines,
    params: LiveParams,
    engine: str = "auto",
    settings: Mapping[str, Any] | None = None,
    enrolled: Mapping[str, NDArray[np.float32]] | None = None,
    recording: str | None = None,
) -> Provenance:
    """The row at the head of a session's. `settings`: other parameters, by the part they are of.

    `recording`: sha256, where a file is listened to.
    """
    names = {"vad": "silero", "segmentation": "pyannote", "embedding": "campplus"}
    names["transcription"] = engine
    infos = {stage: _info(stage, name, context) for stage, name in names.items()}
    models = ["podtool-background"] if loaded.denoiser is not None else []
    models += ["podtool-talkers-streaming"] if loaded.separator is not None else []
    models += ["podtool-talkers"] if loaded.careful is not None else []
    told = {"live": asdict(params)} | {k: asdict(v) for k, v in (settings or {}).items()}
    inputs = {f"enrolled {n}": _hash(v) for n, v in sorted((enrolled or {}).items())}
    if recording is not None:
        inputs["recording"] = recording
    parts = provenance.components("live", context, infos, told, inputs, models=models)
    return provenance.provenance(parts)


def _hash(vector: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(vector, np.float32).tobytes()).hexdigest()


def _info(stage: str, name: str, context: EngineContext) -> EngineInfo:
    name = engines.choose(stage, context) if name == "auto" else name
    info: EngineInfo = engines.engine_class(stage, name).info
    return info


def _separator(network: Network) -> Callable[[int], TalkerStream]:
    from podtool.engines.separation_podtool import TalkerStream

    return lambda count: TalkerStream(network, count)


def _careful(network: Network) -> Careful:
    from podtool.engines.separation_podtool import PodtoolTalkers

    engine = PodtoolTalkers(network)
    return lambda samples, count: engine.talkers(Audio(samples[None], RATE), count)


def _network(context: EngineContext, model: str, missing: list[str]) -> Network | None:
    from podtool.engines.separation_podtool import Network

    try:
        return Network.open(context.model(model), 1)
    except PodtoolError as error:
        missing.append(f"{error.message}: {error.hint or ''}".rstrip(": "))
        return None


def _reader(context: EngineContext, params: LiveParams, engine: str) -> Reader:
    from podtool.engines.transcription_moonshine import Moonshine
    from podtool.stages.transcribe import check_language

    name = engine
    if engine == "auto":
        name = engines.choose("transcription", context)
    loaded = engines.load("transcription", name, context)
    check_language(loaded.info, params.language)
    aligner = _aligner(context, params)
    if isinstance(loaded, Moonshine):
        return MoonshineReader(loaded.model, aligner, params.beam)
    return EngineReader(loaded, aligner, params.language)


def _aligner(context: EngineContext, params: LiveParams) -> AlignmentEngine | None:
    if not params.align or params.language.split("-")[0].lower() != "en":
        return None
    try:
        found: AlignmentEngine = engines.load("alignment", "pocketsphinx", context)
    except EngineUnavailableError as error:
        log.info("words are not aligned: %s", error.message)
        return None
    return found
