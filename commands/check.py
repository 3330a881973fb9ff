"""`podtool check`: is this file what it says it is?"""

from __future__ import annotations

from typing import Annotated

import typer

from . import shared
from .shared import Json


def check(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="JSONL rows, RTTM and the like, audio, run directories, '-'."
        ),
    ],
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings fail as well (exit 10).")
    ] = False,
    files: Annotated[
        bool,
        typer.Option("--files/--no-files", help="Read the audio that rows refer to, and hash it."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Validate artifacts: every row, what rows say of each other and of files, audio, runs.

    Exit 0: all is well, warnings aside. 3: something cannot be read. 10: it reads, and is wrong:
    a reference to nothing, times after the end, a changed file, one speaker in two utterances.
    """
    from dataclasses import asdict

    from podtool.checking import check as look
    from podtool.checking import verdict

    reports = [r for name in inputs for r in look(name, shared.binary_stdin, files)]
    if as_json:
        for report in reports:
            shared.json_rows(
                {"kind": "finding", **{k: v for k, v in asdict(f).items() if v is not None}}
                for f in report.findings
            )
            shared.json_rows(
                [
                    {
                        "kind": "checked",
                        "path": report.path,
                        "holds": report.holds,
                        "errors": report.count("error"),
                        "warnings": report.count("warning"),
                    }
                ]
            )
    else:
        lines = []
        for report in reports:
            state = "broken" if report.count("error") else "ok"
            lines.append([report.path, "", state, report.holds])
            lines += [
                ["" if f.path == report.path else f.path, str(f.line or ""), f.severity, f.message]
                for f in report.findings
            ]
        shared.table("check", ["file", "line", "", "what"], lines, True, "left")
    error = verdict(reports, strict)
    if error is not None:
        raise error
