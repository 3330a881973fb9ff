"""`podtool import`: the formats of other programs into rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import shared
from .shared import Force, Out


def import_(
    input: Annotated[
        str, typer.Argument(metavar="FILE", help="RTTM, SRT, VTT, CTM, TextGrid, SegLST, labels.")
    ],
    format: Annotated[
        str | None,
        typer.Option("-f", "--format", help="Where the file's name does not tell it, or for '-'."),
    ] = None,
    recording: Annotated[
        Path | None,
        typer.Option(help="The audio that the times speak of: adds its `recording` row."),
    ] = None,
    what: Annotated[
        str, typer.Option("--what", help="turns, utterances or segments, where both are possible.")
    ] = "auto",
    output: Out = None,
    force: Force = False,
) -> None:
    """Read turns and utterances of other programs as rows.

    A line that cannot be read is an error that names it. With --recording the rows can go on into
    `transcribe`, `clone` or `replace --turns`.
    """
    from dataclasses import replace

    from podtool.artifacts import Segment, Turn, Utterance
    from podtool.audio import open_audio
    from podtool.errors import InputError, UsageError
    from podtool.formats import WHAT, by_name, format_of, read_file, read_text, text_of
    from podtool.inputs import recording_of

    if what not in WHAT:
        raise UsageError(f"there is no {what!r}", f"Choose from {', '.join(WHAT)}.")
    if output is not None:
        shared.refuse_existing(output, force)
    chosen = by_name(format) if format else format_of(input)
    if input == "-":
        if chosen is None:
            raise UsageError("stdin has no name that tells its format", "Give --format.")
        text = text_of(shared.binary_stdin().read(), "stdin")
        rows = read_text(text, "stdin", chosen, "recording", what)
    else:
        rows = read_file(input, chosen, what=what)
    if recording is not None:
        with open_audio(recording) as audio:
            own = recording_of(recording, audio)
        timed = [r for r in rows if isinstance(r, (Turn, Utterance, Segment))]
        names = {r.recording for r in timed}
        if own.id in names:
            timed = [r for r in timed if r.recording == own.id]
        elif len(names) > 1:
            raise InputError(
                f"{input} speaks of {len(names)} recordings and none is called {own.id}",
                f"They are: {', '.join(sorted(names))}.",
            )
        late = max(timed, key=lambda r: r.end)
        if late.end > own.duration + 0.01:
            raise InputError(
                f"{input} goes on until {late.end:.2f} s, {recording} ends at {own.duration:.2f} s",
                "Is it the right recording?",
            )
        placed = [replace(r, recording=own.id, end=min(r.end, own.duration)) for r in timed]
        rows = [own, *placed]
    shared.write_out(rows, output, force)
