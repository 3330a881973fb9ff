"""`podtool speakers`: known people, and the speakers of a diarization."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import shared
from .shared import Device, Force, Json, Out

app = typer.Typer(
    help="Known people whose names diarize gives; merge and relabel the speakers of a file.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="Name of a person.")]
Rows = Annotated[str, typer.Argument(metavar="ROWS", help="JSONL rows; '-' is stdin.")]


@app.command()
def enrol(
    name: Name,
    clips: Annotated[
        list[Path], typer.Argument(metavar="CLIP...", help="Recordings of this person alone.")
    ],
    add: Annotated[
        bool, typer.Option("--add", help="Add to the clips that are known already.")
    ] = False,
    force: Force = False,
    device: Device = None,
) -> None:
    """Remember the voice of a person: diarize then gives the name to whoever sounds like this.

    A clip with two people, or with less than three seconds of speech, is refused. What is kept is
    an embedding, in a file that only you can read; `rm` forgets it.
    """
    from podtool import speakers

    with shared.progress() as observe:
        person = speakers.enrol(name, clips, shared.context(device), add, force, observe)
    many = "clip" if len(person.clips) == 1 else "clips"
    shared.note(f"{person.name}: {person.speech_s:.1f} s of speech in {len(person.clips)} {many}")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Who is known."""
    from podtool import speakers

    people = speakers.known()
    if as_json:
        shared.json_rows(
            {
                "kind": "known",
                "name": p.name,
                "speech_s": round(p.speech_s, 3),
                "clips": [c.path for c in p.clips],
                "models": sorted(p.embeddings),
            }
            for p in people
        )
        return
    if not people:
        shared.note("nobody is enrolled: podtool speakers enrol NAME CLIP")
        return
    shared.table(
        "known people",
        ["name", "speech s", "clips"],
        ((p.name, f"{p.speech_s:.1f}", "\n".join(c.path for c in p.clips)) for p in people),
        to_stdout=True,
    )


@app.command()
def rename(old: Name, new: Annotated[str, typer.Argument(help="What to call the person.")]) -> None:
    """Another name for a person. (For a label within a file there is `relabel`.)"""
    from podtool import speakers

    person = speakers.rename(old, new)
    shared.note(f"{old} is {person.name} now")


@app.command()
def rm(names: Annotated[list[str], typer.Argument(help="Names of people to forget.")]) -> None:
    """Forget people."""
    from podtool import speakers

    for name in names:
        speakers.find(name)  # all or none
    for name in names:
        shared.note(f"{speakers.remove(name).name} is forgotten")


@app.command()
def merge(
    rows: Rows,
    keep: Annotated[str, typer.Argument(metavar="KEEP", help="The label that stays.")],
    others: Annotated[
        list[str], typer.Argument(metavar="OTHER...", help="Labels of the same person.")
    ],
    output: Out = None,
    force: Force = False,
) -> None:
    """Two labels that are one person: `merge ep.jsonl S1 S3` makes S3 part of S1.

    Turns that overlap then are joined, seconds and embedding counted anew. The rows are written to
    stdout or -o; the file that was given is left alone unless -o with --force names it.
    """
    from podtool import relabel
    from podtool.inputs import read_rows_input

    if output is not None:
        shared.refuse_existing(output, force)
    given = read_rows_input(rows, shared.binary_stdin)
    shared.write_out(relabel.merge(given, keep, others), output, force)


@app.command("relabel")
def relabel_(
    rows: Rows,
    old: Annotated[str, typer.Argument(metavar="OLD", help="A label of the file, such as S1.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What to call it.")],
    output: Out = None,
    force: Force = False,
) -> None:
    """Another label for a speaker of a file, in every row that names it."""
    from podtool import relabel
    from podtool.inputs import read_rows_input

    if output is not None:
        shared.refuse_existing(output, force)
    given = read_rows_input(rows, shared.binary_stdin)
    shared.write_out(relabel.rename(given, old, new), output, force)
