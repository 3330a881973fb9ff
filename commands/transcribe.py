"""`podtool transcribe`: who said what, when."""

from __future__ import annotations

from typing import Annotated

import typer

from . import shared
from .shared import (
    Device,
    EngineName,
    FallbackNames,
    Force,
    FromStem,
    Input,
    MaxMemory,
    Out,
    Preset,
    Settings,
    TimingsFlag,
)

Language = Annotated[
    str | None,
    typer.Option("--language", help="Language of the recording, such as en; auto: it is told."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Model of the engine: an id, a folder, or a cached repository."),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", help="Names and words that come up, for engines that take a prompt."),
]
Align = Annotated[
    str | None,
    typer.Option("--align", help="Engine that times the words; own: the recogniser's times."),
]
Overlap = Annotated[
    str | None,
    typer.Option("--overlap", help="Where people talk at once: auto, separate or mixture."),
]


def transcribe(
    input: Input,
    language: Language = None,
    engine: EngineName = None,
    model: Model = None,
    prompt: Prompt = None,
    align: Align = None,
    overlap: Overlap = None,
    source: FromStem = "mixture",
    output: Out = None,
    force: Force = False,
    preset: Preset = None,
    settings: Settings = None,
    device: Device = None,
    fallback: FallbackNames = None,
    max_memory: MaxMemory = None,
    timings: TimingsFlag = False,
) -> None:
    """Write down what is said: `utterance` rows with speaker and words; every word has times.

    Rows with turns are read turn by turn; audio, or rows without turns, is diarized first.
    Words are read from the recording also where rows bring a stem of the speech alone: a recogniser
    hears more in what was recorded than in what a separator left of it (--from speech).
    Overlapping speech gives overlapping utterances: people who talk at once are read apart, where
    a talker engine runs here.
    """
    from podtool.artifacts import Row, Segment, Speaker, Turn, Utterance
    from podtool.pipeline import diarize_file, transcribe_file
    from podtool.progress import Timings
    from podtool.rowio import of_kind
    from podtool.stages.diarize import DiarizeParams
    from podtool.stages.talkers import TalkersParams
    from podtool.stages.transcribe import TranscribeParams, transcript_metrics

    if output is not None:
        shared.refuse_existing(output, force)
    given = shared.read_input(input, None if source == "mixture" else source)
    flags = {
        "engine": engine,
        "language": language,
        "model": model,
        "prompt": prompt,
        "align": align,
        "overlap": overlap,
    }
    params = shared.resolve_params(TranscribeParams, flags, preset, settings)
    apart = shared.resolve_params(TalkersParams, {}, preset, settings)
    context = shared.context(device, preset, settings, fallback, max_memory)
    shared.warn_of_oddities(given.audio)
    parts = Timings()
    rows: list[Row] = [r for r in given.rows if not isinstance(r, Utterance)]
    with shared.progress() as observe:
        if not any(isinstance(r, (Turn, Speaker, Segment)) for r in rows):
            diarize_params = shared.resolve_params(DiarizeParams, {}, preset, settings)
            rows += diarize_file(
                given.audio, given.recording, context, diarize_params, parts, observe
            )
        found = transcribe_file(
            given.audio,
            given.recording,
            rows,
            context,
            params,
            parts,
            observe,
            params.engine,
            apart=apart,
        )
    utterances = of_kind(found, Utterance)
    told = transcript_metrics(utterances, params.low_confidence)
    extra = shared.timing_rows(parts, "transcribe") if timings else []
    shared.write_out([*rows, *found, *told, *extra], output, force)
    if not utterances:
        shared.warn("no speech was found: there are no utterances")
        return
    value = {m.name: m.value for m in told}
    shared.note(
        f"{value['words']:.0f} words in {len(utterances)} utterances, "
        f"{value['words_per_second']:.1f} words/s; {value['low_confidence_share']:.0%} doubtful, "
        f"{value['interpolated_share']:.0%} with interpolated times"
    )
