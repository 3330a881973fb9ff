"""`podtool presets`: the shipped settings, and where each value of a stage comes from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import shared

app = typer.Typer(help="Presets and where settings come from.", no_args_is_help=True)


@app.command("list")
def list_presets(json: shared.Json = False) -> None:
    """The shipped presets and what they are for."""
    from podtool.config import load_preset, preset_names

    found = [load_preset(name) for name in preset_names()]
    if json:
        shared.json_rows({"name": p.name, "about": p.about, "settings": p.values} for p in found)
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
    settings: shared.Settings = None,
    json: shared.Json = False,
) -> None:
    """Every setting: its value, where that comes from, what it does."""
    import os

    from podtool import config

    preset = preset or os.environ.get("PODTOOL_PRESET") or None
    if preset:
        config.load_preset(preset)
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
    rows = [
        [f"{r['stage']}.{r['setting']}", str(r["value"]), r["origin"], r["help"]] for r in records
    ]
    title = f"Settings with {preset}" if preset else "Settings"
    shared.table(title, ["setting", "value", "from", "what it does"], rows, to_stdout=True)
