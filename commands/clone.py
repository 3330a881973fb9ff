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
    --consent.
    """
    from podtool.artifacts import Voice
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
    params = shared.resolve_params(CloneParams, {"engine": engine}, preset, settings)
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


def _name(output: Path, input: str) -> str:
    return output.stem if output.suffix == ".jsonl" else Path(input).stem
