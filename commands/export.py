"""`podtool export`: rows into the formats of other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from . import shared
from .shared import Force, Out

FormatName = Annotated[
    str | None,
    typer.Option(
        "-f",
        "--format",
        help="rttm, srt, vtt, ctm, textgrid, seglst, audacity or txt; told by -o where it can be.",
    ),
]
What = Annotated[
    str,
    typer.Option("--what", help="turns, utterances or segments; auto takes what the format wants."),
]


def export(
    input: Annotated[str, typer.Argument(metavar="ROWS", help="JSONL rows; '-' is stdin.")],
    format: FormatName = None,
    output: Out = None,
    what: What = "auto",
    only: Annotated[
        str | None, typer.Option(help="Rows of this recording, where there are several.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Labels (S1), not the names of known people.")
    ] = False,
    force: Force = False,
) -> None:
    """Write turns and utterances as RTTM, SRT, VTT, CTM, TextGrid, SegLST, Audacity labels or text.

    Overlapping speech is kept in all of them. Rows go in, text comes out: to stdout, or to -o.
    """
    from podtool.artifacts import Recording
    from podtool.errors import InputError, UsageError
    from podtool.formats import FORMATS, by_name, format_of, with_names, write_file, write_text
    from podtool.inputs import read_rows_input

    chosen = by_name(format) if format else format_of(output) if output else None
    if chosen is None:
        raise UsageError("the format is not known", f"Give --format: {', '.join(FORMATS)}.")
    if output is not None:
        shared.refuse_existing(output, force)
    rows = read_rows_input(input, shared.binary_stdin)
    if only is not None:
        of = [r.id if isinstance(r, Recording) else getattr(r, "recording", None) for r in rows]
        if only not in of:
            names = ", ".join(sorted({n for n in of if n}))
            raise InputError(f"there is no recording {only!r}", f"Recordings: {names}.")
        rows = [r for r, name in zip(rows, of, strict=True) if name in (only, None)]
    text = write_text(rows if labels else with_names(rows), chosen, what)
    if output is None or str(output) == "-":
        shared.text_stdout().write(text)
    else:
        write_file(output, text)
