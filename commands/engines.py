"""`podtool engines`: what runs on this machine, how fast, what does not and what would make it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import shared

if TYPE_CHECKING:
    from podtool.audio import Audio
    from podtool.engines import Availability

app = typer.Typer(help="Engines: what runs here, how fast, and why not.")

StageName = Annotated[
    str | None, typer.Option("--stage", help="Only the engines of this stage, such as 'vad'.")
]
Name = Annotated[str, typer.Argument(metavar="ENGINE", help="Name of an engine.")]


@app.callback(invoke_without_command=True)
def engines(
    ctx: typer.Context,
    stage: StageName = None,
    json: shared.Json = False,
    preset: shared.Preset = None,
    device: shared.Device = None,
) -> None:
    """List the engines of every stage, in the order in which 'auto' considers them."""
    if ctx.invoked_subcommand is None:
        _show(stage, json, preset, device)


@app.command("list")
def list_engines(
    stage: StageName = None,
    json: shared.Json = False,
    preset: shared.Preset = None,
    device: shared.Device = None,
) -> None:
    """List the engines: tier, licence, whether they run here, how fast, what would make them."""
    _show(stage, json, preset, device)


@app.command()
def bench(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Stage, such as transcription.")],
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="Only this engine; repeatable.")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", help="Recording to time them on (default: the demo's speech)."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="How much of it, in seconds.")] = 60.0,
    json: shared.Json = False,
    preset: shared.Preset = None,
    device: shared.Device = None,
) -> None:
    """Time the engines of a stage that run here, each in a process of its own; remember the result.

    The real-time factor is seconds of work per second of audio. `podtool engines` shows it from
    then on. Exit 9 where an engine fails.
    """
    from dataclasses import asdict

    from podtool import engines
    from podtool.engines import bench as benching
    from podtool.errors import EngineUnavailableError, PartialFailure, PodtoolError, UsageError

    if not 2.0 <= seconds <= 3600.0:
        raise UsageError("--seconds is from 2 to 3600")
    context = shared.context(device, preset)
    known = engines.engine_names(stage)
    if stage not in benching.stages():
        raise EngineUnavailableError(
            f"{stage} is not timed", f"Stages: {', '.join(benching.stages())}"
        )
    unknown = [n for n in engine or [] if n not in known]
    if unknown:
        raise EngineUnavailableError(
            f"there is no {stage} engine {unknown[0]!r}", f"Known: {', '.join(known)}"
        )
    audio = benching.sample(_recording(input), seconds)
    timings, failed = [], []
    for name in engine or known:
        status = engines.availability(stage, name, context)
        if not status.available:
            shared.note(f"{name}: {status.reason}")
            continue
        try:
            timing = benching.bench(stage, name, audio, context)
        except PodtoolError as error:
            failed.append(name)
            shared.warn(f"{name}: {error.message}")
            continue
        benching.remember(timing)
        timings.append(timing)
        shared.note(f"{name}: {timing.rtf:.3f}")
    if json:
        shared.json_rows(asdict(t) for t in timings)
    else:
        columns = ["engine", "real-time factor", "load s", "peak MB", "of audio s"]
        rows = [
            [t.engine, f"{t.rtf:.3f}", f"{t.load_s:.1f}", f"{t.peak_mb:.0f}", f"{t.audio_s:.0f}"]
            for t in timings
        ]
        shared.table(f"{stage} on {context.device}", columns, rows, to_stdout=True)
    if failed:
        raise PartialFailure(f"failed: {', '.join(failed)}")


@app.command()
def install(
    engine: Name,
    python: Annotated[
        str | None,
        typer.Option("--python", help="Python to make the environment of (default: podtool's)."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Make it anew where it is there.")] = False,
) -> None:
    """Give an engine an environment of its own, below PODTOOL_HOME; its worker runs there.

    For engines that cannot be installed beside the others. pip fetches what the engine requires:
    this and `models pull` are the only commands that use the network.
    """
    from podtool.engines import environments

    info = _info(engine)
    requires = environments.requirements(info)
    shared.note(f"{engine} ({info.licence}): pip install {' '.join(requires)}")
    place = environments.install(info, python, again)
    shared.note(f"{engine} runs in {place}")


@app.command()
def remove(engine: Name) -> None:
    """Delete the environment of an engine's own."""
    from podtool.engines import environments
    from podtool.errors import UsageError

    if not environments.remove(engine):
        raise UsageError(
            f"{engine} has no environment of its own",
            f"There are: {', '.join(environments.installed()) or 'none'}",
        )
    shared.note(f"{engine}: removed")


def _info(engine: str) -> Any:
    """The facts of an engine by its name alone. Raises EngineUnavailableError."""
    from podtool import engines
    from podtool.errors import EngineUnavailableError

    for stage in engines.BUILTIN:
        if engine in engines.engine_names(stage):
            return engines.engine_class(stage, engine).info
    raise EngineUnavailableError(f"there is no engine {engine!r}", "podtool engines lists them")


def _recording(name: str | None) -> Audio:
    """The recording of --input, else the demo's speech, else a made-up voice."""
    from podtool import demo
    from podtool.audio import open_audio
    from podtool.engines.bench import made_up
    from podtool.errors import ModelError
    from podtool.store import ModelStore

    if name is not None:
        with open_audio(name) as file:
            return file.read(0, 3600 * file.sample_rate)
    store = ModelStore()
    try:
        return demo.build(store.folder("demo-recordings"), store.folder("demo-voice")).episode
    except ModelError:
        shared.note("no recording at hand: timed on a made-up voice (--input FILE for yours)")
        return made_up()


def _show(stage: str | None, json: bool, preset: str | None, device: str | None) -> None:
    from podtool import engines

    context = shared.context(device, preset)
    stages = [stage] if stage else list(engines.BUILTIN)
    found = [
        engines.availability(s, name, context) for s in stages for name in engines.engine_names(s)
    ]
    chosen = {(s, _auto(s, context)) for s in stages}
    records = [_facts(a, (a.stage, a.name) in chosen, context.device) for a in found]
    if json:
        shared.json_rows(records)
        return
    rows, advice = [], []
    for r in records:
        weights = {None: "-", True: "yes", False: "no"}[r["weights"]]
        place = "own" if r["own_environment"] else "yes" if r["installed"] else "no"
        runs = "auto" if r["auto"] else "yes" if r["available"] else "no"
        speed = f"{r['rtf']:.3f}" if r["rtf"] is not None else ""
        rows.append([r["stage"], r["engine"], r["tier"], r["licence"], place, weights, runs, speed])
        if not r["available"]:
            advice.append(f"  {r['engine']}: {r['hint'] or r['reason']}")
    columns = ["stage", "engine", "tier", "licence", "installed", "weights", "runs", "RTF"]
    shared.table("Engines on this machine", columns, rows, to_stdout=True, justify="left")
    if advice:  # in lines of their own: a command that a column breaks cannot be copied
        typer.echo("\n".join(["To make the others run:", *advice]))


def _auto(stage: str, context: Any) -> str:
    """What `auto` would take; empty where nothing runs."""
    from podtool import engines
    from podtool.errors import PodtoolError

    try:
        return engines.choose(stage, context)
    except PodtoolError:
        return ""


def _facts(a: Availability, auto: bool, device: str) -> dict[str, Any]:
    from podtool.engines.bench import remembered

    info = a.info
    timing = remembered(info, device) if info else None
    return {
        "stage": a.stage,
        "engine": a.name,
        "available": a.available,
        "auto": auto,
        "installed": a.installed,
        "own_environment": a.own_environment,
        "weights": a.weights,
        "rtf": timing.rtf if timing else None,
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
