"""Stages on files: load the engines, call the pure stage, build its rows.

The commands of single stages and `replace` call the same functions, so they give the same rows.
Every function returns the new rows alone, a `provenance` row first; `timings` gets the parts.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podtool import provenance
from podtool.artifacts import (
    Consent,
    Embedding,
    Metric,
    Recording,
    Row,
    Stem,
    Take,
    Turn,
    Voice,
)
from podtool.audio import AudioSource, AudioWriter, blocks, open_audio, sha256_of, write_audio
from podtool.engines import availability, choose, engine_class, load
from podtool.engines.local_models import content_of_model
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import (
    ConfigError,
    EngineFailure,
    EngineUnavailableError,
    InputError,
    ModelError,
    UsageError,
)
from podtool.keys import Components, content_of, key_of, row_seed
from podtool.progress import OnProgress, Progress, Timings, ignore
from podtool.rowio import of_kind
from podtool.rundir.takepool import TakePool
from podtool.segments import Span, intersect, subtract

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from podtool.stages.clone import Adapter, CloneParams
    from podtool.stages.convert import ConvertParams
    from podtool.stages.diarize import DiarizeParams
    from podtool.stages.reconstruct import ReconstructParams
    from podtool.stages.separate import SeparateParams
    from podtool.stages.talkers import TalkersParams
    from podtool.stages.transcribe import TranscribeParams
    from podtool.training.adapt import Gain

log = logging.getLogger(__name__)


def engine_info(stage: str, name: str, context: EngineContext) -> EngineInfo:
    """The facts of the engine that `name` (or 'auto') means here, nothing loaded."""
    name = choose(stage, context) if name == "auto" else name
    info: EngineInfo = engine_class(stage, name).info
    return info


# ---------------------------------------------------------------- diarize


OWN_DIARIZATION = "podtool"


def diarize_key(
    recording: Recording,
    context: EngineContext,
    params: DiarizeParams,
    enrolled: Mapping[str, NDArray[np.float32]] | None = None,
) -> Components:
    """What a diarization depends on."""
    people = {f"enrolled {n}": _hash(v) for n, v in sorted((enrolled or {}).items())}
    inputs = {"recording": recording.sha256, "name": recording.id, **people}
    if params.engine != OWN_DIARIZATION:
        infos = {
            "diarization": engine_info("diarization", params.engine, context),
            "embedding": engine_info("embedding", "campplus", context),
        }
        return provenance.components("diarize", context, infos, params, inputs)
    infos = {
        "vad": engine_info("vad", "silero", context),
        "segmentation": engine_info("segmentation", "pyannote", context),
        "embedding": engine_info("embedding", "campplus", context),
    }
    return provenance.components("diarize", context, infos, params, inputs)


def diarize_file(
    audio: AudioSource,
    recording: Recording,
    context: EngineContext,
    params: DiarizeParams,
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
    enrolled: Mapping[str, NDArray[np.float32]] | None = None,
) -> list[Row]:
    """Rows: provenance, turns, overlap segments, speakers. `enrolled`: name -> embedding (192,).

    Where the audio is a stem of the recording, some of that is heard beneath it.
    """
    from podtool.inputs import over_recording
    from podtool.stages.diarize import DiarizeEngines, diarize

    timings = timings if timings is not None else Timings()
    audio = over_recording(audio, recording, params.beneath)
    if params.engine != OWN_DIARIZATION:
        return _diarize_whole(audio, recording, context, params, timings, on_progress, enrolled)
    with timings.part("load"):
        engines = DiarizeEngines(
            vad=load("vad", "silero", context),
            segmentation=load("segmentation", "pyannote", context),
            embedding=load("embedding", "campplus", context),
        )
    found = diarize(
        audio,
        recording.id,
        engines,
        params,
        enrolled=enrolled,
        on_progress=on_progress,
        timings=timings,
        workers=context.threads,
    )
    made_by = provenance.provenance(
        diarize_key(recording, context, params, enrolled), context.incidents
    )
    return [made_by, *found.turns, *found.overlaps, *found.speakers]


def _diarize_whole(
    audio: AudioSource,
    recording: Recording,
    context: EngineContext,
    params: DiarizeParams,
    timings: Timings,
    on_progress: OnProgress,
    enrolled: Mapping[str, NDArray[np.float32]] | None,
) -> list[Row]:
    """`diarize_file` by an engine that reads the recording at once."""
    from podtool.stages.diarize_whole import diarize_whole

    seconds = audio.frames / audio.sample_rate
    # One call takes as long as the recording may need, not as long as a chunk.
    worker = dataclasses.replace(
        context.worker, timeout_s=max(context.worker.timeout_s, 3 * seconds)
    )
    with timings.part("load"):
        engine = load("diarization", params.engine, dataclasses.replace(context, worker=worker))
        embedding = load("embedding", "campplus", context)
    found = diarize_whole(
        audio, recording.id, engine, embedding, params, enrolled, on_progress, timings
    )
    made_by = provenance.provenance(
        diarize_key(recording, context, params, enrolled), context.incidents
    )
    return [made_by, *found.turns, *found.overlaps, *found.speakers]


# ---------------------------------------------------------------- separate


def separate_key(
    recording: Recording,
    context: EngineContext,
    params: SeparateParams,
    speech_spans: Sequence[Span] | None = None,
) -> Components:
    """What the stems depend on."""
    context = _with_separator(context, params)
    infos = {"separation": engine_info("separation", params.engine, context)}
    inputs = {"recording": recording.sha256, "name": recording.id}
    if params.model:
        inputs["model"] = content_of_model(context, params.model)
    if speech_spans is not None:
        spans = [[round(a, 6), round(b, 6)] for a, b in speech_spans]
        inputs["speech"] = key_of({"spans": spans})
    return provenance.components("separate", context, infos, params, inputs)


def separate_file(
    audio: AudioSource,
    recording: Recording,
    context: EngineContext,
    params: SeparateParams,
    out_dir: Path,
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
    speech_spans: Sequence[Span] | None = None,
) -> list[Row]:
    """Writes speech.wav and background.wav (float); rows: provenance, two stems, metrics.

    `speech_spans`: where somebody speaks, where that is known. Raises OutputError.
    """
    from podtool.stages.separate import STEMS, StemSummary, separate

    timings = timings if timings is not None else Timings()
    key = separate_key(recording, context, params, speech_spans)
    with timings.part("load"):
        engine = load("separation", params.engine, _with_separator(context, params))
    summary = StemSummary()
    paths = {name: out_dir / f"{name}.wav" for name in STEMS}
    with timings.part("separation"), ExitStack() as stack:
        writers = {
            name: stack.enter_context(AudioWriter(path, audio.sample_rate, audio.channels, "float"))
            for name, path in paths.items()
        }
        workers = context.threads or 2
        for block in separate(audio, engine, speech_spans, params, on_progress, workers):
            writers["speech"].write(block.speech)
            writers["background"].write(block.background)
            summary.add(block)
    stems = [
        Stem(
            id=f"{recording.id}-{name}",
            recording=recording.id,
            name=name,
            path=str(path.absolute()),
            sha256=sha256_of(path),
            sample_rate=audio.sample_rate,
            channels=audio.channels,
            frames=audio.frames,
        )
        for name, path in paths.items()
    ]
    told = [
        Metric("speech_energy_share", summary.speech_share, "share"),
        Metric("stems_sum_error", summary.sum_error, "samples"),
    ]
    return [provenance.provenance(key, context.incidents), *stems, *told]


def _with_separator(context: EngineContext, params: SeparateParams) -> EngineContext:
    """The context with the model that is wanted. Raises ConfigError where the engine takes none."""
    if not params.model:
        return context
    if params.engine == "auto":
        raise ConfigError("separate.model is of one engine", "Name it: separate.engine")
    if "model" not in engine_class("separation", params.engine).info.options:
        raise ConfigError(f"the separation engine {params.engine} takes no model")
    options = {**(context.options or {}), "model": params.model}
    return dataclasses.replace(context, options=options)


# ---------------------------------------------------------------- talkers


def talkers_key(
    recording: Recording,
    turns: Sequence[Turn],
    context: EngineContext,
    params: TalkersParams,
    heard: str | None = None,
    labels: Sequence[str] | None = None,
) -> Components:
    """What the stems of speakers depend on; `heard` is the hash of the audio separated.

    `labels`: of whom a stem is written, None: of all. Without overlaps no engine is part of it.
    """
    from podtool.stages.overlaps import overlaps

    infos = {}
    if overlaps(turns, params):
        infos = {
            "talkers": engine_info("talkers", params.engine, context),
            "embedding": engine_info("embedding", "campplus", context),
        }
    inputs = {"audio": heard or recording.sha256, "turns": content_of(turns)}
    if labels is not None:
        inputs["labels"] = key_of({"labels": sorted(labels)})
    return provenance.components("talkers", context, infos, params, inputs)


def talkers_file(
    audio: AudioSource,
    recording: Recording,
    rows: Sequence[Row],
    context: EngineContext,
    params: TalkersParams,
    out_dir: Path,
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
    mixture: AudioSource | None = None,
    heard: str | None = None,
    labels: Sequence[str] | None = None,
) -> list[Row]:
    """Writes speaker-<label>.wav for each speaker of the turns in `rows`, and background.wav.

    `audio` is the recording or its speech stem, `heard` the hash of it where it is not the
    recording itself, `mixture` the recording then: the background is what the stems leave of it.
    With `labels` only their stems are written, and no background. Rows: provenance, stems,
    metrics. Raises EngineUnavailableError or ModelError where people talk at once and no engine
    tells them apart, OutputError.
    """
    from podtool.stages.overlaps import overlaps
    from podtool.stages.talkers import TalkerSummary, talkers

    timings = timings if timings is not None else Timings()
    turns = of_kind(rows, Turn)
    key = talkers_key(recording, turns, context, params, heard, labels)
    engine = embedder = None
    if overlaps(turns, params):
        with timings.part("load"):
            engine = load("talkers", params.engine, context)
            embedder = load("embedding", "campplus", context)
    paths = speaker_paths(out_dir, [t.speaker for t in turns] if labels is None else labels)
    background = out_dir / "background.wav"
    summary = TalkerSummary()
    with timings.part("talkers"), ExitStack() as stack:

        def writer(path: Path) -> AudioWriter:
            return stack.enter_context(
                AudioWriter(path, audio.sample_rate, audio.channels, "float")
            )

        writers = {label: writer(path) for label, path in paths.items()}
        rest = writer(background) if labels is None else None
        for block in talkers(audio, turns, engine, embedder, params, mixture, on_progress):
            for label, each in writers.items():
                each.write(block.stems[label])
            if rest is not None:
                rest.write(block.background)
            summary.add(block)
    made: list[tuple[str, Path, str | None]] = [
        (f"speaker:{label}", path, label) for label, path in paths.items()
    ]
    if labels is None:
        made.append(("background", background, None))
    stems = [
        Stem(
            id=f"{recording.id}-{speaker or name}",
            recording=recording.id,
            name=name,
            path=str(path.absolute()),
            sha256=sha256_of(path),
            sample_rate=audio.sample_rate,
            channels=audio.channels,
            frames=audio.frames,
            speaker=speaker,
        )
        for name, path, speaker in made
    ]
    return [provenance.provenance(key, context.incidents), *stems, *summary.metrics()]


def speaker_paths(out_dir: Path, labels: Sequence[str]) -> dict[str, Path]:
    """Label -> the file of that speaker's stem; no two labels share one."""
    paths: dict[str, Path] = {}
    for label in sorted(set(labels)):
        path = out_dir / f"speaker-{_file_name(label)}.wav"
        while path in paths.values():
            path = path.with_stem(f"{path.stem}-2")
        paths[label] = path
    return paths


# ---------------------------------------------------------------- transcribe


def transcribe_key(
    recording: Recording,
    turns: Sequence[Turn],
    context: EngineContext,
    params: TranscribeParams,
    engine: str = "auto",
    heard: str | None = None,
    apart: TalkersParams | None = None,
) -> Components:
    """What a transcript depends on; `heard` is the hash of the audio read, if not the recording.

    `apart`: settings of the talker separator, which is part of it where people talk at once.
    """
    of = engine_options(context, params)
    infos = {"transcription": engine_info("transcription", engine, of["transcription"])}
    if params.align != OWN_TIMES:
        infos["alignment"] = engine_info("alignment", params.align, of["alignment"])
    if params.gate and availability("vad", "silero", context).available:
        infos["vad"] = engine_info("vad", "silero", context)
    # How many windows go through the engine together changes nothing in what it says of each.
    settings = {k: v for k, v in dataclasses.asdict(params).items() if k != "batch"}
    separator = separator_of_talkers(turns, context, params.overlap, apart)
    if separator is not None:
        infos["talkers"] = separator
        infos["embedding"] = engine_info("embedding", "campplus", context)
        settings["talkers"] = dataclasses.asdict(_talkers_params(apart))
    inputs = {"audio": heard or recording.sha256, "turns": content_of(turns)}
    for role, model in (("model", params.model), ("aligner's model", params.align_model)):
        if model:
            inputs[role] = content_of_model(context, model)
    return provenance.components("transcribe", context, infos, settings, inputs)


OWN_TIMES = "own"


def engine_options(context: EngineContext, params: TranscribeParams) -> dict[str, EngineContext]:
    """What the recogniser and the aligner are loaded with: which model, prompt and language."""
    language = "" if params.language == "auto" else params.language
    wanted = {
        "transcription": {"model": params.model, "prompt": params.prompt},
        "alignment": {"model": params.align_model, "language": language},
    }
    return {
        stage: dataclasses.replace(
            context,
            options={**(context.options or {}), **{k: v for k, v in options.items() if v}},
        )
        for stage, options in wanted.items()
    }


def separator_of_talkers(
    turns: Sequence[Turn],
    context: EngineContext,
    overlap: str = "auto",
    params: TalkersParams | None = None,
) -> EngineInfo | None:
    """The talker engine that is asked: None without overlaps, for 'mixture', or with no engine.

    Raises EngineUnavailableError or ModelError where 'separate' is wanted and none runs here.
    """
    from podtool.stages.overlaps import overlaps

    params = _talkers_params(params)
    if overlap == "mixture" or not overlaps(turns, params):
        return None
    try:
        return talker_engine(params.engine, context)
    except (EngineUnavailableError, ModelError) as error:
        if overlap == "separate":
            raise
        log.debug("overlaps stay mixed: %s", error)
        return None


def talker_engine(name: str, context: EngineContext) -> EngineInfo:
    """The facts of a talker engine that runs here, with the embedding that it is sorted by.

    Raises EngineUnavailableError or ModelError where one of the two does not.
    """
    info = engine_info("talkers", name, context)
    for stage, engine in (("talkers", info.name), ("embedding", "campplus")):
        status = availability(stage, engine, context)
        if not status.available:
            raise EngineUnavailableError(f"{engine}: {status.reason}", status.hint or None)
    return info


def _talkers_params(params: TalkersParams | None) -> TalkersParams:
    from podtool.stages.talkers import TalkersParams

    return params or TalkersParams()


def transcribe_file(
    audio: AudioSource,
    recording: Recording,
    rows: Sequence[Row],
    context: EngineContext,
    params: TranscribeParams,
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
    engine: str = "auto",
    heard: str | None = None,
    apart: TalkersParams | None = None,
    speakers: Collection[str] | None = None,
) -> list[Row]:
    """Rows: provenance, utterances with words. `rows` brings the turns; `speakers`: who is read.

    Where people talk at once, they are read apart if a talker engine (`apart`) runs here and
    `params.overlap` is not 'mixture'; a line of the log says so where none does.
    """
    from podtool.resample import at_rate
    from podtool.stages.overlaps import overlaps
    from podtool.stages.talkers import speaker_streams
    from podtool.stages.transcribe import check_language, transcribe

    timings = timings if timings is not None else Timings()
    apart = _talkers_params(apart)
    turns = of_kind(rows, Turn)
    key = transcribe_key(recording, turns, context, params, engine, heard, apart)
    of = engine_options(context, params)
    with timings.part("load"):
        recogniser = load("transcription", engine, of["transcription"])
        aligner = None
        if params.align != OWN_TIMES:
            aligner = load("alignment", params.align, of["alignment"])
        vad = None
        if params.gate and availability("vad", "silero", context).available:
            vad = load("vad", "silero", context)
    check_language(recogniser.info, params.language)
    for option, value in (("model", params.model), ("prompt", params.prompt)):
        if value and option not in recogniser.info.options:
            log.warning("%s takes no %s: it is ignored", recogniser.info.name, option)
    if not params.batch:
        params = dataclasses.replace(params, batch=16 if context.device == "cuda" else 1)
    with timings.part("resample"):
        source = at_rate(audio, recogniser.info.sample_rate)
    streams: dict[str, AudioSource] = {}
    separator = separator_of_talkers(turns, context, params.overlap, apart)
    if separator is not None:
        with timings.part("talkers"):
            streams = speaker_streams(
                source,
                turns,
                load("talkers", separator.name, context),
                load("embedding", "campplus", context),
                apart,
                on_progress,
                silences=True,
            )
    elif params.overlap == "auto" and overlaps(turns, apart):
        log.warning(
            "people talk at once, and no talker engine runs here: overlaps are read as they are "
            "(podtool engines says what is missing)"
        )
    found = transcribe(
        source, turns, recogniser, aligner, params, streams, on_progress, timings, speakers, vad
    )
    return [provenance.provenance(key, context.incidents), *found]


# ---------------------------------------------------------------- clone


def clone_key(
    references: Mapping[str, str],
    context: EngineContext,
    params: CloneParams,
    consent: str | None,
) -> Components:
    """What voices depend on; `references`: any name -> content hash of what is heard."""
    infos = {
        "conversion": engine_info("conversion", params.engine, context),
        "embedding": engine_info("embedding", "campplus", context),
        "segmentation": engine_info("segmentation", "pyannote", context),
    }
    inputs = {f"reference {i}": h for i, h in enumerate(references.values(), 1)}
    settings = {**dataclasses.asdict(params), "consent": consent or ""}
    del settings["engine"]  # what it was resolved to stands among the engines
    settings["names"] = [Path(name).stem for name in references]
    return provenance.components("clone", context, infos, settings, inputs)


def clone_voice(
    audio: AudioSource,
    recording: Recording,
    context: EngineContext,
    params: CloneParams,
    name: str,
    consent: str | None,
    out_dir: Path,
    rows: Sequence[Row] = (),
    speaker: str | None = None,
    voice_id: str = "v0001",
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
    heard: str | None = None,
    licence: str | None = None,
    by: str | None = None,
    date: str | None = None,
) -> list[Row]:
    """A voice of a speaker of a diarized recording (`rows`, `speaker`), or of a bare reference.

    A bare reference is diarized first and refused where it holds two people, music, or too little
    speech. Writes <name>.safetensors into `out_dir`; rows: provenance, voice, and metrics of what
    adapting gained (`params.adapt_min`). Warnings are logged. Raises UsageError without consent or
    for an engine that cannot be adapted, InputError.
    """
    from podtool.stages.clone import clone, with_reference_checks
    from podtool.stages.diarize import DiarizeParams

    if not (consent or "").strip():
        raise UsageError(
            "a voice is made with the consent of the person heard",
            '--consent "who agreed, to what, when"',
        )
    timings = timings if timings is not None else Timings()
    warnings: tuple[str, ...] = ()
    turns = of_kind(rows, Turn)
    if not turns:
        turns = of_kind(
            diarize_file(audio, recording, context, DiarizeParams(), timings, on_progress), Turn
        )
    with timings.part("load"):
        converter = load("conversion", params.engine, context)
        embedder = load("embedding", "campplus", context)
    if speaker is None:
        with timings.part("reference"):
            speaker, warnings = with_reference_checks(audio, turns, params)
    adapter = _adapter(converter, on_progress) if params.adapt_min > 0 else None
    with timings.part("enrolment"):
        made = clone(
            audio,
            recording.id,
            turns,
            speaker,
            converter,
            embedder,
            params,
            context.threads,
            on_progress,
            adapter,
        )
    for line in (*warnings, *made.warnings):
        log.warning("voice %s: %s", name, line)
    path = out_dir / f"{_file_name(name)}.safetensors"
    if path.exists():
        path = path.with_stem(f"{path.stem}-{voice_id}")
    out_dir.mkdir(parents=True, exist_ok=True)
    made.profile.save(path)
    model = embedder.info.name
    voice = Voice(
        id=voice_id,
        name=name,
        engine=converter.info.name,
        path=str(path.absolute()),
        sha256=sha256_of(path),
        sample_rate=made.profile.sample_rate,
        consent=Consent(str(consent).strip(), by, date),
        enrolment=made.clips,
        licence=licence,
        embedding=None
        if made.embedding is None
        else Embedding(model, tuple(round(float(x), 6) for x in made.embedding)),
        statistics=made.statistics,
    )
    key = clone_key({name: heard or recording.sha256}, context, params, consent)
    return [provenance.provenance(key, context.incidents), voice, *_gain_rows(made.gain, voice.id)]


def _adapter(converter: Any, on_progress: OnProgress) -> Adapter:
    from podtool.engines.voice_podtool import PodtoolVoice
    from podtool.training.adapt import adapt

    if not isinstance(converter, PodtoolVoice):
        raise UsageError(
            f"voices of the engine {converter.info.name} cannot be adapted here",
            "--engine podtool, in no process of its own; or clone without --adapt.",
        )

    def told(done: int, whole: int) -> None:
        on_progress(Progress("adapt", done, whole, "steps"))

    return lambda profile, clips: adapt(converter, profile, clips, on_progress=told)


def _gain_rows(gain: Gain | None, subject: str) -> list[Row]:
    if gain is None:
        return []
    return [
        Metric("adapt_mcd_before", round(gain.before_db, 4), "dB", subject, gain.held_out),
        Metric("adapt_mcd_after", round(gain.after_db, 4), "dB", subject, gain.held_out),
        Metric("adapt_steps", float(gain.steps), "steps", subject),
        Metric("adapt_speech", round(gain.seconds, 2), "s", subject, gain.taught + gain.held_out),
    ]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "voice"


# ---------------------------------------------------------------- synthesize, by conversion


def convert_key(
    recording: Recording,
    rows: Sequence[Row],
    voices: Mapping[str, Voice],
    context: EngineContext,
    params: ConvertParams,
    overlap: str = "keep",
    seed: int = 0,
    heard: str | None = None,
    stems: Mapping[str, Stem] | None = None,
) -> Components:
    """What the takes of converted turns depend on; `voices`, `stems`: speaker label -> one."""
    infos = {
        "conversion": engine_info("conversion", _engine_of(voices), context),
        "embedding": engine_info("embedding", "campplus", context),
    }
    inputs = {"audio": heard or recording.sha256, "turns": content_of(of_kind(rows, Turn))}
    inputs |= {f"voice of {label}": _voice_content(v) for label, v in sorted(voices.items())}
    inputs |= {f"stem of {label}": s.sha256 for label, s in sorted((stems or {}).items())}
    settings = {**dataclasses.asdict(params), "method": "convert", "overlap": overlap}
    return provenance.components("synthesize", context, infos, settings, inputs, seed)


def convert_turns(
    audio: AudioSource,
    recording: Recording,
    rows: Sequence[Row],
    voices: Mapping[str, Voice],
    context: EngineContext,
    params: ConvertParams,
    out_dir: Path,
    pool: TakePool,
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
    overlap: str = "keep",
    seed: int = 0,
    heard: str | None = None,
    on_take: Callable[[str, str], None] | None = None,
    stems: Mapping[str, Stem] | None = None,
) -> list[Row]:
    """Every turn of the speakers in `voices` (label -> voice) as a take in that voice.

    `audio` is the recording or its speech stem, `heard` the hash of it where it is not the
    recording itself; `stems` are those of the speakers, from which turns are converted that
    somebody talks over. Takes that `pool` has are not made again; `on_take(id, key)` is told of
    each one made. Writes <take id>.wav into `out_dir`; rows: provenance, takes in order of time.
    """
    from podtool.engines.world_profile import SpeechProfile
    from podtool.stages.convert import analyse_speaker, convert, speaker_spans, turn_frames

    timings = timings if timings is not None else Timings()
    turns = of_kind(rows, Turn)
    stems = stems or {}
    made_by = convert_key(recording, rows, voices, context, params, overlap, seed, heard, stems)
    with timings.part("load"):
        engine = load("conversion", _engine_of(voices), context)
        embedder = load("embedding", "campplus", context)
    takes: list[Take] = []
    for label, voice in voices.items():
        slots = replaced_slots(turns, label, overlap)
        spans = speaker_spans(turns, label)
        common = {
            "engine": made_by["engines"],
            "models": made_by["models"],
            "params": {k: v for k, v in made_by["params"].items() if k != "overlap"},
            "audio": made_by["inputs"]["audio"],
            "speaker": [[round(a, 6), round(b, 6)] for a, b in spans],
            "voice": _voice_content(voice),
        }
        apart = {t.id for t, _ in slots if label in stems and _talked_over(t, turns)}
        keys = {
            t.id: key_of(
                {
                    **common,
                    **({"audio": stems[label].sha256} if t.id in apart else {}),
                    "slot": [round(t.start, 6), round(t.end, 6)],
                }
            )
            for t, _ in slots
        }
        missing = [t for t, _ in slots if pool.get(keys[t.id]) is None]
        if missing:
            with timings.part("analysis"):
                source = analyse_speaker(audio, spans, engine, params, context.threads, on_progress)
                target = SpeechProfile.load(Path(voice.path))
                mapping = engine.voice_map(source, target, params.mapping())
            for line in mapping.warnings:
                log.warning("%s as %s: %s", label, voice.name, line)
            vector = _vector(voice)
            plain = [t for t in missing if t.id not in apart]
            jobs: list[tuple[AudioSource, list[Turn]]] = [(audio, plain)] if plain else []
            with timings.part("conversion"), ExitStack() as stack:
                if len(plain) < len(missing):
                    own = stack.enter_context(open_audio(stems[label].path))
                    jobs.append((own, [t for t in missing if t.id in apart]))
                for source_audio, these in jobs:
                    for done in convert(
                        source_audio,
                        these,
                        engine,
                        mapping,
                        params,
                        embedder if vector is not None else None,
                        vector,
                        context.threads,
                        on_progress,
                    ):
                        key = keys[done.turn.id]
                        pool.put(key, (b for _, b in blocks(done.audio)), {"checks": done.checks})
                        if on_take is not None:
                            on_take(take_id(done.turn.id), key)
        for turn, keep in slots:
            finished = pool.get(keys[turn.id])
            if finished is None:
                raise EngineFailure(f"the take of turn {turn.id} was lost while others were made")
            path = out_dir / f"{take_id(turn.id)}.wav"
            pool.copy_to(finished, path)
            first, stop = turn_frames(audio, turn)
            takes.append(
                Take(
                    id=take_id(turn.id),
                    recording=recording.id,
                    speaker=label,
                    voice=voice.id,
                    method="convert",
                    path=str(path.absolute()),
                    sha256=finished.sha256,
                    sample_rate=audio.sample_rate,
                    channels=1,
                    frames=stop - first,
                    start=turn.start,
                    end=turn.end,
                    seed=row_seed(seed, turn.id),
                    turn=turn.id,
                    tempo=1.0,
                    fits=True,
                    keep=tuple((s.start, s.end) for s in keep) or None,
                    checks=finished.facts["checks"],
                )
            )
    takes.sort(key=lambda t: (t.start, t.end, t.id))
    return [provenance.provenance(made_by, context.incidents), *takes]


def _talked_over(turn: Turn, turns: Sequence[Turn]) -> bool:
    return any(
        t.speaker != turn.speaker and t.start < turn.end and t.end > turn.start for t in turns
    )


SHORT_PART_S = 0.1  # less than this between overlaps is kept too: a fade would eat it


def replaced_slots(
    turns: Sequence[Turn], speaker: str, overlap: str
) -> list[tuple[Turn, list[Span]]]:
    """The turns of a speaker that get a take, each with the parts that stay original.

    With "keep": wherever anybody else's turn overlaps; turns that are overlapped throughout get
    none. With "separate" and "convert" nothing stays.
    """
    others = [Span(t.start, t.end) for t in turns if t.speaker != speaker]
    found: list[tuple[Turn, list[Span]]] = []
    for turn in turns:
        if turn.speaker != speaker:
            continue
        whole = [Span(turn.start, turn.end)]
        near = [o for o in others if o.start < turn.end and o.end > turn.start]
        keep = intersect(whole, near) if overlap == "keep" else []
        parts = [p for p in subtract(whole, keep) if p.duration >= SHORT_PART_S]
        if keep:
            keep = subtract(whole, parts)
        if parts:
            found.append((turn, keep))
    return found


def take_id(of: str) -> str:
    """The id of the take of a turn or utterance: k0007 of t0007."""
    return f"k{of[1:]}" if of[:1] in "tu" and of[1:].isdigit() else f"k-{of}"


def _engine_of(voices: Mapping[str, Voice]) -> str:
    names = sorted({v.engine for v in voices.values()})
    if len(names) > 1:
        raise InputError(f"the voices are of different engines: {', '.join(names)}")
    return names[0] if names else "auto"


def _voice_content(voice: Voice) -> str:
    embedding = voice.embedding.vector if voice.embedding else ()
    return key_of({"state": voice.sha256, "embedding": [round(x, 6) for x in embedding]})


def _vector(voice: Voice) -> NDArray[np.float32] | None:
    import numpy as np

    if voice.embedding is None or voice.embedding.model != "campplus":
        return None
    return np.array(voice.embedding.vector, np.float32)


# ---------------------------------------------------------------- reconstruct


def reconstruct_key(
    recording: Recording,
    takes: Sequence[Take],
    stems: Sequence[Stem],
    context: EngineContext,
    params: ReconstructParams,
) -> Components:
    """What the episode depends on.

    `stems` holds the speech stem, or none for a clean bed, and stems of speakers who are taken
    out of overlaps alone.
    """
    inputs = {
        "recording": recording.sha256,
        "takes": content_of(takes),
        "speech": next((s.sha256 for s in stems if s.name == "speech"), "none"),
    }
    inputs |= {f"stem of {s.speaker}": s.sha256 for s in stems if s.speaker is not None}
    return provenance.components("reconstruct", context, {}, params, inputs)


def reconstruct_episode(
    audio: AudioSource,
    recording: Recording,
    takes: Sequence[Take],
    stems: Sequence[Stem],
    context: EngineContext,
    params: ReconstructParams,
    output: Path,
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
) -> list[Row]:
    """Writes the episode as float WAV; rows: provenance, its stem, placements, metrics.

    The null test is taken before mastering, which changes every sample. Raises InputError for
    takes that do not belong to the recording, OutputError.
    """
    from podtool.loudness import master, measure
    from podtool.stages.reconstruct import (
        active_power,
        changed_spans,
        null_test,
        place,
        placements,
        render,
    )

    timings = timings if timings is not None else Timings()
    rate = audio.sample_rate
    voice = next((s for s in stems if s.name == "speech"), None)
    plain = output if params.master == "none" else output.with_name(f"plain-{output.name}")
    with ExitStack() as stack:
        speech = stack.enter_context(open_audio(voice.path)) if voice else None
        own = {s.speaker: _opened(stack, Path(s.path)) for s in stems if s.speaker is not None}

        def open_take(take: Take) -> AudioSource:
            return open_audio(take.path)

        with timings.part("place"):
            slots = place(takes, audio, open_take, speech, params, own)
        with timings.part("render"):
            rendered = render(slots, audio, open_take, speech, params, on_progress, voices=own)
            write_audio(plain, rendered, "float")
        result = stack.enter_context(open_audio(plain))
        with timings.part("null_test"):
            nulls = null_test(audio, result, changed_spans(slots, rate))
        told = [Metric("null_test_peak", nulls.outside_max, "samples")]
        for slot in slots:
            before, after = active_power(audio, slot.parts), active_power(result, slot.parts)
            change = 10 * math.log10((after.mean() + 1e-15) / (before.mean() + 1e-15))
            told.append(Metric("loudness_change_lu", change, "LU", slot.take.id))
        if plain != output:
            with timings.part("master"):
                stream, _ = master(
                    lambda: (b for _, b in blocks(result)), rate, audio.channels, params.master
                )
                write_audio(output, stream, "float")
        with timings.part("loudness"):
            loud, old = measure(_opened(stack, output)), measure(audio)
    if plain != output:
        plain.unlink()
    told += [
        Metric("lufs_before", old.integrated_lufs, "LUFS"),
        Metric("lufs", loud.integrated_lufs, "LUFS"),
        Metric("true_peak_before_dbtp", old.true_peak_dbtp, "dBTP"),
        Metric("true_peak_dbtp", loud.true_peak_dbtp, "dBTP"),
    ]
    episode = Stem(
        id=f"{recording.id}-episode",
        recording=recording.id,
        name="episode",
        path=str(output.absolute()),
        sha256=sha256_of(output),
        sample_rate=rate,
        channels=audio.channels,
        frames=audio.frames,
    )
    key = reconstruct_key(recording, takes, stems, context, params)
    return [provenance.provenance(key), episode, *placements(slots, rate, params), *told]


def _opened(stack: ExitStack, path: Path) -> AudioSource:
    return stack.enter_context(open_audio(path))


def _hash(value: Any) -> str:
    """Hash of an array's content."""
    import hashlib

    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(value, np.float32).tobytes()).hexdigest()
