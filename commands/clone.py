"""`podtool clone`: a voice profile from the best clips of one person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import shared
from .shared import (
    ConsentText,
    Device,
    EngineName,
    Force,
    Input,
    Out,
    Preset,
    Settings,
    TimingsFlag,
)

SpeakerLabel = Annotated[
    str | None,
    typer.Option("--speaker", help="Label, enrolled name, or a clip of the person to clone."),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the voice.")]
By = Annotated[str | None, typer.Option("--by", help="Who gave the consent.")]
Date = Annotated[str | None, typer.Option("--date", help="When, as YYYY-MM-DD.")]
Adapt = Annotated[
    float | None,
    typer.Option(
        "--adapt",
        min=0.5,
        metavar="MINUTES",
        help="Teach the converter with up to so much of the person's speech; takes about as long.",
    ),
]
Licence = Annotated[str | None, typer.Option("--licence", help="Licence of the recording.")]


def clone(
    input: Input,
    speaker: SpeakerLabel = None,
    name: Name = None,
    consent: ConsentText = None,
    by: By = None,
    date: Date = None,
    licence: Licence = None,
    engine: EngineName = None,
    adapt: Adapt = None,
    output: Out = None,
    force: Force = False,
    preset: Preset = None,
    settings: Settings = None,
    device: Device = None,
    timings: TimingsFlag = False,
) -> None:
    """Make a voice profile: a `voice` row in OUTPUT, its state file beside it.

    INPUT is a recording of one person, or a diarized file with --speaker. The clips are chosen by
    quality: alone, loud over the noise, not clipped. The engine that makes it will speak it. Needs
    --consent. With --adapt, some of the clips are held out, and what was gained on them is told; a
    voice for which nothing is gained stays as it is without.
    """
    from podtool.artifacts import Metric, Voice
    from podtool.errors import UsageError
    from podtool.pipeline import clone_voice
    from podtool.progress import Timings
    from podtool.rowio import of_kind
    from podtool.speaker_choice import find_speaker
    from podtool.stages.clone import CloneParams

    if output is None or str(output) == "-":
        raise UsageError("a profile is two files: where to?", "Give -o FILE.jsonl.")
    shared.refuse_existing(output, force)
    given = shared.read_input(input)
    context = shared.context(device, preset, settings)
    given_params = {"engine": engine, "adapt_min": adapt}
    params = shared.resolve_params(CloneParams, given_params, preset, settings)
    shared.warn_of_oddities(given.audio)
    label = find_speaker(given.rows, speaker, context) if speaker else None
    parts = Timings()
    with shared.progress() as observe:
        rows = clone_voice(
            given.audio,
            given.recording,
            context,
            params,
            name=name or _name(output, input),
            consent=consent,
            out_dir=output.parent,
            rows=given.rows if label else (),
            speaker=label,
            timings=parts,
            on_progress=observe,
            licence=licence,
            by=by,
            date=date,
        )
    gained = [m for m in of_kind(rows, Metric) if m.name.startswith("adapt_")]
    rows += shared.timing_rows(parts, "clone") if timings else []
    shared.write_out(rows, output, force)
    for voice in of_kind(rows, Voice):
        statistics = sorted((voice.statistics or {}).items())
        shared.table(
            f"voice {voice.name}: {len(voice.enrolment)} clips",
            ["", "value"],
            [(key.replace("_", " "), f"{value:.4g}") for key, value in statistics],
            to_stdout=False,
        )
    if gained:
        shared.table(
            "adapted: the clips held out, said from the others",
            ["", "value", "unit"],
            [(m.name.replace("_", " "), f"{m.value:.4g}", m.unit) for m in gained],
            to_stdout=False,
        )


def _name(output: Path, input: str) -> str:
    return output.stem if output.suffix == ".jsonl" else Path(input).stem
