"""`podtool diarize`: who speaks when."""

from __future__ import annotations

from typing import Annotated

import typer

from . import shared
from .shared import (
    Device,
    Force,
    FromStem,
    Input,
    MaxMemory,
    Out,
    Preset,
    Settings,
    TimingsFlag,
)

Count = Annotated[int | None, typer.Option("--speakers", help="Exactly this many people.")]
Least = Annotated[int | None, typer.Option("--min-speakers", help="At least this many.")]
Most = Annotated[int | None, typer.Option("--max-speakers", help="At most this many.")]
FillGap = Annotated[
    float | None, typer.Option("--fill-gap", help="Pauses up to this many seconds are speech.")
]
Denoise = Annotated[
    str | None,
    typer.Option("--denoise", help="Clean voices before comparing: auto, always, never."),
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="Who hears the voices: podtool, or a diarization engine."),
]
Names = Annotated[
    bool, typer.Option("--names/--no-names", help="Name people known by `podtool speakers`.")
]


def diarize(
    input: Input,
    speakers: Count = None,
    min_speakers: Least = None,
    max_speakers: Most = None,
    fill_gap: FillGap = None,
    denoise: Denoise = None,
    engine: Engine = None,
    names: Names = True,
    source: FromStem = "speech",
    output: Out = None,
    force: Force = False,
    preset: Preset = None,
    settings: Settings = None,
    device: Device = None,
    max_memory: MaxMemory = None,
    timings: TimingsFlag = False,
) -> None:
    """Find who speaks when, overlaps included: `turn`, `segment` and `speaker` rows.

    Audio or rows in, rows out; rows that were given are repeated first. Where they bring a stem of
    the speech, that is heard, with a little of the recording beneath it (diarize.beneath). The
    seconds of each speaker and of overlap are told on stderr.
    """
    from podtool import speakers as known
    from podtool.artifacts import Segment, Speaker, Turn
    from podtool.pipeline import diarize_file
    from podtool.progress import Timings
    from podtool.rowio import of_kind
    from podtool.stages.diarize import DiarizeParams

    if output is not None:
        shared.refuse_existing(output, force)
    given = shared.read_input(input, None if source == "mixture" else source)
    flags = {
        "speakers": speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
        "fill_gap_s": fill_gap,
        "denoise": denoise,
        "engine": engine,
    }
    params = shared.resolve_params(DiarizeParams, flags, preset, settings)
    shared.warn_of_oddities(given.audio)
    parts = Timings()
    with shared.progress() as observe:
        rows = diarize_file(
            given.audio,
            given.recording,
            shared.context(device, preset, settings, None, max_memory),
            params,
            parts,
            observe,
            known.embeddings() if names else None,
        )
    kept = [r for r in given.rows if not isinstance(r, (Turn, Speaker, Segment))]
    rows = [*kept, *rows, *(shared.timing_rows(parts, "diarize") if timings else [])]
    shared.write_out(rows, output, force)
    people = of_kind(rows, Speaker)
    if not people:
        shared.warn("no speech was found: there are no turns")
        return
    if len(people) == 1:
        shared.warn("a single speaker was found")
    turns = of_kind(rows, Turn)
    shared.table(
        f"{given.recording.id}: {len(turns)} turn{'s' if len(turns) != 1 else ''}",
        ["speaker", "name", "speech s", "overlapped s", "turns", "confidence"],
        (
            (
                p.id,
                p.name or "",
                f"{p.speech_s:.1f}",
                f"{p.overlap_s or 0:.1f}",
                str(sum(t.speaker == p.id for t in turns)),
                f"{p.score:.2f}" if p.score is not None else "",
            )
            for p in people
        ),
        to_stdout=False,
    )
