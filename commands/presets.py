"""`podtool presets`: the shipped settings, and where each value of a stage comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import shared

if TYPE_CHECKING:
    from podtool.config import Preset

app = typer.Typer(
    help="Presets: what they set and why; where settings come from.", no_args_is_help=True
)


@app.command("list")
def list_presets(json: shared.Json = False) -> None:
    """The shipped presets and what they are for."""
    from podtool.config import load_preset, preset_names

    found = [load_preset(name) for name in preset_names()]
    if json:
        shared.json_rows(
            {"name": p.name, "about": p.about, "why": p.why, "settings": p.values} for p in found
        )
        return
    rows = [
        [
            p.name,
            p.about,
            ", ".join(f"{s}.{k}={v}" for s, t in p.values.items() for k, v in t.items()),
        ]
        for p in found
    ]
    shared.table("Presets", ["preset", "for", "sets"], rows, to_stdout=True)


@app.command()
def explain(
    preset: Annotated[
        str | None, typer.Argument(metavar="[PRESET]", help="Preset name or TOML file.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option("--stage", help="Only this stage; repeatable.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Settings that the preset leaves alone, too.")
    ] = False,
    settings: shared.Settings = None,
    json: shared.Json = False,
) -> None:
    """What a preset sets and why, and whether its engines run here.

    Without a preset: every setting, its value, where that comes from, what it does.
    """
    import os

    from podtool import config

    preset = preset or os.environ.get("PODTOOL_PRESET") or None
    chosen = config.load_preset(preset) if preset else None
    config.check_settings(settings or [])
    records: list[dict[str, Any]] = []
    for name in stage or list(config.STAGES):
        kind = config.params_type(name)
        resolved = config.resolve(kind, preset=preset, settings=settings or [])
        for key, (default, text) in config.defaults(kind).items():
            records.append(
                {
                    "stage": name,
                    "setting": key,
                    "value": getattr(resolved.params, key),
                    "origin": resolved.origins.get(key, "default"),
                    "default": default,
                    "help": text,
                }
            )
    if json:
        shared.json_rows(records)
        return
    if chosen is not None and not every and not stage:
        records = [r for r in records if r["origin"] != "default"]
    columns = ["setting", "value", "default", "from", "what it does"]
    rows = [
        [f"{r['stage']}.{r['setting']}", *(str(r[k]) for k in columns[1:3]), r["origin"], r["help"]]
        for r in records
    ]
    if chosen is not None:
        _tell(chosen)
    title = f"Settings with {preset}" if preset else "Settings"
    shared.table(title, columns, rows, to_stdout=True, justify="left")


def _tell(preset: Preset) -> None:
    """What a preset is for, why it is as it is, and what it would need on this machine."""
    lines = [f"{preset.name}: {preset.about}"]
    if preset.why:
        lines += ["", " ".join(preset.why.split())]
    needs = list(_needs(preset))
    lines += ["", *needs] if needs else []
    typer.echo("\n".join(lines) + "\n")


def _needs(preset: Preset) -> Iterator[str]:
    """Its device, and each engine that it names: whether it runs here, and what would make it."""
    from podtool import engines

    if preset.device:
        here = preset.device in engines.machine_runtimes()
        yield f"device {preset.device}: {'is here' if here else 'is not here'}"
    context = shared.context(None, preset.name)
    for table, key, stage in _ENGINES:
        name = preset.values.get(table, {}).get(key, "auto")
        if name in ("auto", "own"):
            continue
        status = engines.availability(stage, name, context)
        why = f"{status.reason} ({status.hint})" if status.hint else status.reason
        yield f"{stage} {name}: {'runs here' if status.available else why}"


_ENGINES = (
    ("separate", "engine", "separation"),
    ("talkers", "engine", "talkers"),
    ("transcribe", "engine", "transcription"),
    ("transcribe", "align", "alignment"),
)
