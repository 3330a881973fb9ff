"""`podtool engines`: what runs on this machine, what does not and why, licences, install lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import shared

if TYPE_CHECKING:
    from podtool.engines import Availability

app = typer.Typer(help="Engines: what runs here, and why not.", invoke_without_command=True)

StageName = Annotated[
    str | None, typer.Option("--stage", help="Only the engines of this stage, such as 'vad'.")
]


@app.callback()
def engines(
    ctx: typer.Context,
    stage: StageName = None,
    json: shared.Json = False,
    device: shared.Device = None,
) -> None:
    """List the engines of every stage, in the order in which 'auto' considers them."""
    if ctx.invoked_subcommand is None:
        _show(stage, json, device)


@app.command("list")
def list_engines(
    stage: StageName = None, json: shared.Json = False, device: shared.Device = None
) -> None:
    """List the engines: tier, licence, whether they run here, what would make them."""
    _show(stage, json, device)


def _show(stage: str | None, json: bool, device: str | None) -> None:
    from podtool import engines

    context = shared.context(device)
    stages = [stage] if stage else list(engines.BUILTIN)
    found = [
        engines.availability(s, name, context) for s in stages for name in engines.engine_names(s)
    ]
    chosen = {(s, _auto(s, context)) for s in stages}
    if json:
        shared.json_rows(_facts(a, (a.stage, a.name) in chosen) for a in found)
        return
    rows = []
    for a in found:
        tier, licence = (a.info.tier, a.info.licence) if a.info else ("?", "?")
        mark = "auto" if (a.stage, a.name) in chosen else "yes"
        note = "" if a.available else f"{a.reason}{f' ({a.hint})' if a.hint else ''}"
        rows.append([a.stage, a.name, tier, licence, mark if a.available else "no", note])
    columns = ["stage", "engine", "tier", "licence", "runs", "what is missing"]
    shared.table("Engines on this machine", columns, rows, to_stdout=True)


def _auto(stage: str, context: Any) -> str:
    """What `auto` would take; empty where nothing runs."""
    from podtool import engines
    from podtool.errors import PodtoolError

    try:
        return engines.choose(stage, context)
    except PodtoolError:
        return ""


def _facts(a: Availability, auto: bool) -> dict[str, Any]:
    info = a.info
    return {
        "stage": a.stage,
        "engine": a.name,
        "available": a.available,
        "auto": auto,
        "reason": a.reason,
        "hint": a.hint,
        "tier": info.tier if info else "",
        "licence": info.licence if info else "",
        "version": info.version if info else "",
        "sample_rate": info.sample_rate if info else 0,
        "runtimes": list(info.runtimes) if info else [],
        "models": list(info.models) if info else [],
        "install": info.install if info else "",
        "languages": list(info.languages) if info else [],
    }
