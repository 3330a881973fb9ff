"""Settings: flags over --set over environment over preset over the defaults of the Params classes.

A preset is a TOML file with one table per stage; `extends` names another preset to start from.
Unknown stages and fields are errors with a suggestion, never ignored.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import os
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from podtool.errors import ConfigError

# Stage -> where its Params class is. Imported only when a setting of the stage is looked up.
STAGES = {
    "separate": "podtool.stages.separate:SeparateParams",
    "diarize": "podtool.stages.diarize:DiarizeParams",
    "transcribe": "podtool.stages.transcribe:TranscribeParams",
    "clone": "podtool.stages.clone:CloneParams",
    "convert": "podtool.stages.convert:ConvertParams",
    "speak": "podtool.stages.speak:SpeakParams",
    "reconstruct": "podtool.stages.reconstruct:ReconstructParams",
}
Preset = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The parameters of a stage and, for each field, where its value came from."""

    params: Any
    origins: dict[str, str]


def params_class(stage: str) -> type[Any]:
    """The Params class of a stage. Raises ConfigError for an unknown one."""
    if stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}", _suggest(stage, STAGES))
    module, _, name = STAGES[stage].partition(":")
    found: type[Any] = getattr(import_module(module), name)
    return found


def stage_of(params_type: type[Any]) -> str:
    """The stage that a Params class belongs to."""
    path = f"{params_type.__module__}:{params_type.__name__}"
    return next(stage for stage, where in STAGES.items() if where == path)


def resolve(
    params_type: type[Any],
    flags: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
) -> Resolved:
    """The parameters of a stage from all sources. A flag of None was not given.

    `settings` are texts "stage.field=value"; those of other stages are checked and skipped.
    Raises ConfigError, naming the source.
    """
    stage = stage_of(params_type)
    env = os.environ if env is None else env
    values: dict[str, Any] = {}
    origins = {f.name: "default" for f in dataclasses.fields(params_type)}

    def put(name: str, value: Any, origin: str) -> None:
        values[name] = checked(params_type, stage, name, value, origin)
        origins[name] = origin

    if preset:
        for name, value in load_preset(preset).get(stage, {}).items():
            put(name, value, f"preset {preset}")
    for field in dataclasses.fields(params_type):
        variable = f"PODTOOL_{stage}_{field.name}".upper()
        if variable in env:
            put(field.name, env[variable], variable)
    for setting in settings:
        key, equals, text = setting.partition("=")
        where, dot, name = key.strip().partition(".")
        if not (equals and dot):
            raise ConfigError(f"--set {setting}: expected stage.field=value")
        if where != stage:
            checked(params_class(where), where, name, text, f"--set {key}")
            continue
        put(name, text, f"--set {key}")
    for name, value in (flags or {}).items():
        if value is not None:
            put(name, value, "flag")
    return Resolved(params_type(**values), origins)


def checked(params_type: type[Any], stage: str, name: str, value: Any, origin: str) -> Any:
    """The value as the field's own type. Raises ConfigError for an unknown field or a bad value."""
    hints = typing.get_type_hints(params_type)
    names = [f.name for f in dataclasses.fields(params_type)]
    if name not in names:
        raise ConfigError(f"{origin}: {stage} has no setting {name!r}", _suggest(name, names))
    wanted = hints[name]
    choices = typing.get_args(wanted) if typing.get_origin(wanted) is typing.Literal else ()
    if choices:
        if value not in choices:
            shown = ", ".join(map(str, choices))
            raise ConfigError(f"{origin}: {stage}.{name} is one of {shown}, not {value!r}")
        return value
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        if isinstance(value, str) and value.lower() in ("", "none"):
            return None
        wanted = next(a for a in typing.get_args(wanted) if a is not type(None))
    try:
        return _converted(wanted, value)
    except (TypeError, ValueError):
        kind = getattr(wanted, "__name__", str(wanted))
        raise ConfigError(f"{origin}: {stage}.{name} is a {kind}, not {value!r}") from None


def _converted(wanted: Any, value: Any) -> Any:
    if wanted is bool:
        if isinstance(value, bool):
            return value
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        return known[str(value).lower()] if str(value).lower() in known else _fail()
    if isinstance(value, bool):
        return _fail()
    if wanted is int:
        return int(value) if not isinstance(value, float) or value == int(value) else _fail()
    if wanted is float:
        return float(value)
    if wanted is str:
        return value if isinstance(value, str) else _fail()
    return value


def _fail() -> Any:
    raise ValueError


def preset_names() -> list[str]:
    """The presets that come with podtool."""
    folder = importlib.resources.files("podtool.presets")
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """A shipped preset by name, or a TOML file by path, with what it extends underneath.

    Raises ConfigError for a missing file, bad TOML, or an unknown stage or setting.
    """
    return _load(name, ())


def _load(name: str, seen: tuple[str, ...]) -> Preset:
    if name in seen:
        raise ConfigError(f"preset {name} extends itself")
    try:
        table = tomllib.loads(_preset_text(name))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"preset {name} is not valid TOML: {error}") from None
    base = table.pop("extends", None)
    table.pop("description", None)
    merged: Preset = _load(str(base), (*seen, name)) if base else {}
    for stage, fields in table.items():
        if not isinstance(fields, dict):
            raise ConfigError(f"preset {name}: {stage!r} is not a table of settings")
        params_type = params_class(stage)
        target = merged.setdefault(stage, {})
        for field, value in fields.items():
            target[field] = checked(params_type, stage, field, value, f"preset {name}")
    return merged


def _preset_text(name: str) -> str:
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the preset {name}: {error}") from None
    if name not in preset_names():
        raise ConfigError(f"there is no preset {name!r}", _suggest(name, preset_names()))
    folder = importlib.resources.files("podtool.presets")
    return folder.joinpath(f"{name}.toml").read_text(encoding="utf-8")


def preset_description(name: str) -> str:
    """The one-line description that a preset carries."""
    return str(tomllib.loads(_preset_text(name)).get("description", ""))


def _suggest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}"
