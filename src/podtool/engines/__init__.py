"""The registry: which engines there are, which of them run here, and loading one by name.

Built-ins stand in a table of strings, plug-ins come by entry points in the groups
`podtool.<stage>`; both follow `podtool.engines.protocols`. Nothing is imported until asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import platform
import sys
from dataclasses import dataclass
from typing import Any

from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineFailure, EngineUnavailableError, ModelError, PodtoolError

log = logging.getLogger(__name__)

# In order of preference within a stage: `auto` takes the first that runs here.
BUILTIN: dict[str, dict[str, str]] = {
    "vad": {"silero": "podtool.engines.vad_silero:SileroVad"},
    "segmentation": {"pyannote": "podtool.engines.segmentation_pyannote:PyannoteSegmentation"},
    "embedding": {
        "campplus": "podtool.engines.embedding_campplus:CamPlusPlus",
        "ge2e": "podtool.engines.embedding_ge2e:Ge2e",
        "ecapa": "podtool.engines.embedding_ecapa:Ecapa",
    },
    "separation": {
        "demucs": "podtool.engines.separation_demucs:Demucs",
        "podtool": "podtool.engines.separation_podtool:PodtoolSeparation",
        "spectral": "podtool.engines.separation_spectral:Spectral",
    },
    "talkers": {"podtool": "podtool.engines.separation_podtool:PodtoolTalkers"},
    "transcription": {
        "mlx-whisper": "podtool.engines.transcription_mlx_whisper:MlxWhisper",
        "parakeet-mlx": "podtool.engines.transcription_parakeet_mlx:ParakeetMlx",
        "faster-whisper": "podtool.engines.transcription_faster_whisper:FasterWhisper",
        "parakeet": "podtool.engines.transcription_parakeet:Parakeet",
        "moonshine-voice": "podtool.engines.transcription_moonshine_voice:MoonshineVoice",
        "moonshine": "podtool.engines.transcription_moonshine:Moonshine",
        "pocketsphinx": "podtool.engines.transcription_pocketsphinx:PocketSphinx",
    },
    "alignment": {"pocketsphinx": "podtool.engines.alignment_pocketsphinx:PocketSphinxAligner"},
    "conversion": {"world": "podtool.engines.voice_world:World"},
    "speaking": {"espeak": "podtool.engines.voice_espeak:ESpeak"},
}


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether an engine runs here, and if not, why and what would make it."""

    name: str
    stage: str
    info: EngineInfo | None
    available: bool
    reason: str = ""
    hint: str = ""


def engine_names(stage: str) -> list[str]:
    """Names of the engines of a stage, built-ins first, in order of preference."""
    if stage not in BUILTIN:
        raise EngineUnavailableError(
            f"there is no stage {stage!r}", f"Stages: {', '.join(BUILTIN)}"
        )
    return [*BUILTIN[stage], *(n for n in _plugins(stage) if n not in BUILTIN[stage])]


def _plugins(stage: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group=f"podtool.{stage}")}


def engine_class(stage: str, name: str) -> Any:
    """The class of an engine. Raises EngineUnavailableError for an unknown or broken one."""
    known = engine_names(stage)
    if name not in known:
        raise EngineUnavailableError(
            f"there is no {stage} engine {name!r}", f"Known: {', '.join(known)}"
        )
    try:
        if name in BUILTIN[stage]:
            module, _, attribute = BUILTIN[stage][name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        return _plugins(stage)[name].load()
    except (ImportError, AttributeError) as error:
        raise EngineUnavailableError(
            f"the {stage} engine {name} cannot be loaded: {error}"
        ) from error


def availability(stage: str, name: str, context: EngineContext) -> Availability:
    """Whether an engine would load here: packages, runtime and weights, nothing imported."""
    try:
        info: EngineInfo = engine_class(stage, name).info
    except EngineUnavailableError as error:
        return Availability(name, stage, None, False, error.message, error.hint or "")
    runtimes = machine_runtimes()
    if not set(info.runtimes) & set(runtimes):
        return Availability(
            name, stage, info, False, f"needs {' or '.join(info.runtimes)}", info.install
        )
    for package in info.packages:
        if importlib.util.find_spec(package) is None:
            return Availability(
                name, stage, info, False, f"{package} is not installed", info.install
            )
    # An engine whose weights an option may name, or nobody ships yet, says itself what is missing.
    missing = getattr(engine_class(stage, name), "missing", lambda _: None)(context)
    if missing is not None:
        return Availability(name, stage, info, False, missing.message, missing.hint or "")
    for model in info.models:
        try:
            context.model(model)
        except ModelError as error:
            return Availability(name, stage, info, False, error.message, error.hint or "")
    return Availability(name, stage, info, True)


def machine_runtimes() -> tuple[str, ...]:
    """Runtimes that this machine may have, without importing torch or mlx to ask."""
    found = ["cpu"]
    if sys.platform == "darwin" and platform.machine() == "arm64":
        found = ["mlx", "mps", "cpu"]
    elif importlib.util.find_spec("mlx") is not None:
        found = ["mlx", "cpu"]
    if sys.platform == "linux" and _has_nvidia():
        found.insert(0, "cuda")
    return tuple(found)


def _has_nvidia() -> bool:
    from pathlib import Path

    return Path("/dev/nvidiactl").exists()


def load(stage: str, name: str, context: EngineContext) -> Any:
    """Load an engine by name; `auto` takes the first of the stage that runs here.

    Raises EngineUnavailableError, ModelError (missing weights) or EngineFailure.
    """
    if name == "auto":
        name = choose(stage, context)
    status = availability(stage, name, context)
    if not status.available:
        if "weights" in status.reason or "pull" in status.hint:
            raise ModelError(status.reason, status.hint)
        raise EngineUnavailableError(
            f"the {stage} engine {name} does not run here: {status.reason}", status.hint or None
        )
    try:
        return engine_class(stage, name).load(context)
    except PodtoolError:
        raise
    except Exception as error:
        raise EngineFailure(f"the {stage} engine {name} failed to load: {error}") from error


def choose(stage: str, context: EngineContext) -> str:
    """The engine that `auto` means here; the choice is logged."""
    passed_over: list[str] = []
    first_missing: Availability | None = None
    for name in engine_names(stage):
        status = availability(stage, name, context)
        if status.available and _worth_choosing(status, context):
            if passed_over:
                log.info("%s: %s (not %s)", stage, name, "; ".join(passed_over))
            else:
                log.info("%s: %s", stage, name)
            return name
        passed_over.append(f"{name}: {status.reason or 'slow on this machine'}")
        if status.info is not None and status.info.tier == "embedded" and first_missing is None:
            first_missing = status
    if first_missing is not None and "pull" in first_missing.hint:
        raise ModelError(first_missing.reason, first_missing.hint)
    raise EngineUnavailableError(
        f"no {stage} engine runs here ({'; '.join(passed_over)})",
        "podtool engines shows what would",
    )


def _worth_choosing(status: Availability, context: EngineContext) -> bool:
    """`auto` takes engines of the standard tier only where they have an accelerator."""
    if status.info is None or status.info.tier == "embedded":
        return True
    return context.device != "cpu" or sys.platform == "darwin"
