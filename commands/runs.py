"""`podtool runs`: what run directories there are, what a run would do again, cleaning up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import shared
from .shared import Device, Json

if TYPE_CHECKING:
    from podtool.rundir.runs import RunFacts

app = typer.Typer(help="Run directories of `replace`.", no_args_is_help=True)

RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory (NAME.podtool).")]


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to look.")] = Path("."),
    json: Json = False,
) -> None:
    """The run directories in a folder: what of, how far, how large."""
    from podtool.rundir.runs import find_runs

    found = find_runs(folder)
    if json:
        shared.json_rows(_record(r) for r in found)
        return
    if not found:
        shared.note(f"there are no run directories in {folder}")
        return
    shared.table(
        f"runs in {folder}",
        ["run", "episode", "replaces", "state", "last stage", "MB"],
        (
            (
                str(r.path),
                Path(r.request.source).name,
                ", ".join(f"{s} by {Path(v).stem}" for s, v in r.request.mapping) or "-",
                r.state,
                r.done[-1] if r.done else "-",
                f"{r.bytes / 1e6:.0f}",
            )
            for r in found
        ),
        to_stdout=True,
    )


def _record(run: RunFacts) -> dict[str, object]:
    return {
        "run": str(run.path),
        "source": run.request.source,
        "output": run.request.output,
        "state": run.state,
        "done": list(run.done),
        "bytes": run.bytes,
    }


@app.command()
def explain(directory: RunFolder, device: Device = None, json: Json = False) -> None:
    """For each stage: reuse, run or pinned, and the first part of its key that differs."""
    from podtool.replace.plan import read_request

    from . import replacing

    replacing.show_plan(read_request(directory), directory, device, json)


@app.command()
def clean(
    directory: RunFolder,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove the whole run directory, edits included.")
    ] = False,
) -> None:
    """Remove takes that no stage uses, and what a killed run left; --all removes the run."""
    from podtool.rundir.runs import clean_run, remove_run

    if everything:
        freed = remove_run(directory)
        shared.note(f"removed {directory} ({freed / 1e6:.1f} MB)")
        return
    removed, freed = clean_run(directory)
    shared.note(f"removed {removed} files ({freed / 1e6:.1f} MB)")
