"""Stages on files: load the engines, call the pure stage, build its rows.

The commands of single stages and `replace` call the same functions, so they give the same rows.
Every function returns the new rows alone, a `provenance` row first; `timings` gets the parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podtool import provenance
from podtool.artifacts import Metric, Recording, Row, Stem, Turn
from podtool.audio import AudioSource, AudioWriter, sha256_of
from podtool.engines import choose, engine_class, load
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.keys import Components, content_of, key_of
from podtool.progress import OnProgress, Timings, ignore
from podtool.rowio import of_kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from podtool.stages.diarize import DiarizeParams
    from podtool.segments import Span
    from podtool.stages.separate import SeparateParams
    from podtool.stages.transcribe import TranscribeParams


def engine_info(stage: str, name: str, context: EngineContext) -> EngineInfo:
    """The facts of the engine that `name` (or 'auto') means here, nothing loaded."""
    name = choose(stage, context) if name == "auto" else name
    info: EngineInfo = engine_class(stage, name).info
    return info


# ---------------------------------------------------------------- diarize


def diarize_key(
    recording: Recording,
    context: EngineContext,
    params: DiarizeParams,
    enrolled: Mapping[str, NDArray[np.float32]] | None = None,
) -> Components:
    """What a diarization depends on."""
    infos = {
        "vad": engine_info("vad", "silero", context),
        "segmentation": engine_info("segmentation", "pyannote", context),
        "embedding": engine_info("embedding", "campplus", context),
    }
    people = {f"enrolled {n}": _hash(v) for n, v in sorted((enrolled or {}).items())}
    inputs = {"recording": recording.sha256, "name": recording.id, **people}
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
    """Rows: provenance, turns, overlap segments, speakers. `enrolled`: name -> embedding (192,)."""
    from podtool.stages.diarize import DiarizeEngines, diarize

    timings = timings if timings is not None else Timings()
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
    made_by = provenance.provenance(diarize_key(recording, context, params, enrolled))
    return [made_by, *found.turns, *found.overlaps, *found.speakers]


# ---------------------------------------------------------------- separate


def separate_key(
    recording: Recording,
    context: EngineContext,
    params: SeparateParams,
    speech_spans: Sequence[Span] | None = None,
) -> Components:
    """What the stems depend on."""
    infos = {"separation": engine_info("separation", params.engine, context)}
    inputs = {"recording": recording.sha256, "name": recording.id}
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
        engine = load("separation", params.engine, context)
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
    return [provenance.provenance(key), *stems, *told]


# ---------------------------------------------------------------- transcribe


def transcribe_key(
    recording: Recording,
    turns: Sequence[Turn],
    context: EngineContext,
    params: TranscribeParams,
    engine: str = "auto",
    heard: str | None = None,
) -> Components:
    """What a transcript depends on; `heard` is the hash of the audio read, if not the recording."""
    infos = {
        "transcription": engine_info("transcription", engine, context),
        "alignment": engine_info("alignment", "pocketsphinx", context),
    }
    inputs = {"audio": heard or recording.sha256, "turns": content_of(turns)}
    return provenance.components("transcribe", context, infos, params, inputs)


def transcribe_file(
    audio: AudioSource,
    recording: Recording,
    rows: Sequence[Row],
    context: EngineContext,
    params: TranscribeParams,
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
    engine: str = "auto",
    streams: Mapping[str, AudioSource] | None = None,
    heard: str | None = None,
) -> list[Row]:
    """Rows: provenance, utterances with words. `rows` brings the turns to read."""
    from podtool.stages.transcribe import transcribe

    timings = timings if timings is not None else Timings()
    turns = of_kind(rows, Turn)
    key = transcribe_key(recording, turns, context, params, engine, heard)
    with timings.part("load"):
        recogniser = load("transcription", engine, context)
        aligner = load("alignment", "pocketsphinx", context)
    found = transcribe(audio, turns, recogniser, aligner, params, streams, on_progress, timings)
    return [provenance.provenance(key), *found]


def _hash(value: Any) -> str:
    """Hash of an array's content."""
    import hashlib

    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(value, np.float32).tobytes()).hexdigest()
