"""Settings of a stage from four places: flags > environment > preset > defaults.

Defaults live in the stage's frozen Params dataclass and nowhere else. A stage is named after it
(DiarizeParams: `diarize`), its environment variables are PODTOOL_<STAGE>_<FIELD>, its table in a
preset is [<stage>]. Whatever is not known is an error with a suggestion.
"""

from __future__ import annotations

import difflib
import importlib
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from podtool.errors import ConfigError

if TYPE_CHECKING:
    from podtool.engines.command import Declaration

P = TypeVar("P")

STAGES = {
    "separate": "podtool.stages.separate:SeparateParams",
    "talkers": "podtool.stages.talkers:TalkersParams",
    "diarize": "podtool.stages.diarize:DiarizeParams",
    "transcribe": "podtool.stages.transcribe:TranscribeParams",
    "align": "podtool.stages.align:AlignParams",
    "clone": "podtool.stages.clone:CloneParams",
    "convert": "podtool.stages.convert:ConvertParams",
    "speak": "podtool.stages.speak:SpeakParams",
    "reconstruct": "podtool.stages.reconstruct:ReconstructParams",
    "worker": "podtool.engines.protocols:WorkerParams",
    "live": "podtool.live.pipeline:LiveParams",
    "scene": "podtool.live.scene:SceneParams",
    "tracker": "podtool.live.tracker:TrackerParams",
    "voice": "podtool.live.voice:VoiceParams",
}
DEVICES = ("mlx", "cuda", "mps", "cpu")
_PLAIN = {"about", "why", "device", "extends"}  # keys of a preset that are not tables
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Resolved(Generic[P]):
    """The parameters, and where each of them came from."""

    params: P
    origins: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preset:
    """Values by stage and field, merged over what the preset extends."""

    name: str
    about: str
    values: dict[str, dict[str, Any]]
    origins: dict[str, dict[str, str]]  # stage -> field -> name of the preset that sets it
    why: str = ""  # what its choices rest on, in a paragraph
    device: str = ""  # where engines run, unless --device says otherwise
    engines: dict[str, Declaration] = field(default_factory=dict)  # programs that it declares


def stage_of(params_type: type[Any]) -> str:
    """`DiarizeParams` -> `diarize`."""
    return params_type.__name__.removesuffix("Params").lower()


def params_type(stage: str) -> type[Any]:
    """The Params class of a stage. Raises ConfigError for an unknown one."""
    if stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}", _suggest(stage, STAGES))
    module, _, name = STAGES[stage].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("podtool.presets")
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def load_preset(name: str, _below: tuple[str, ...] = ()) -> Preset:
    """A shipped preset by name, or a TOML file by path; `extends` is followed.

    Raises ConfigError: unknown preset, stage or field, a value of the wrong type, a circle.
    """
    if name in _below:
        raise ConfigError(f"presets extend each other in a circle: {' -> '.join((*_below, name))}")
    text, folder = _read(name)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the preset {name} is not valid TOML: {error}") from None
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, dict[str, str]] = {}
    programs: dict[str, Declaration] = {}
    if "extends" in data:
        base = str(data["extends"])
        if folder is not None and base.endswith(".toml"):
            base = str(folder / base)
        below = load_preset(base, (*_below, name))
        values = {stage: dict(v) for stage, v in below.values.items()}
        origins = {stage: dict(v) for stage, v in below.origins.items()}
        programs = dict(below.engines)
        data.setdefault("device", below.device)
    for stage, table in data.items():
        if stage in _PLAIN:
            continue
        where = f"the preset {name}"
        if stage == "engine":
            from podtool.engines.command import read_tables

            programs |= read_tables(table, where, folder)
            continue
        if stage not in STAGES:
            raise ConfigError(f"{where} has a table for no stage: {stage}", _suggest(stage, STAGES))
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: {stage} is not a table", f"Write [{stage}] above it.")
        known = _types(params_type(stage))
        for key, value in table.items():
            _check_field(stage, key, known, where)
            values.setdefault(stage, {})[key] = _fit(value, known[key], f"{where}: {stage}.{key}")
            origins.setdefault(stage, {})[key] = name
    about, why, device = (str(data.get(key, "")).strip() for key in ("about", "why", "device"))
    if device not in ("", *DEVICES):
        raise ConfigError(f"the preset {name}: device is one of {', '.join(DEVICES)}")
    return Preset(name, about, values, origins, why, device, programs)


def resolve(
    params_type: type[P],
    flags: Mapping[str, Any] | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Resolved[P]:
    """The parameters of one stage and the origin of each value.

    `flags` that are None were not given; `settings` are the STAGE.FIELD=VALUE of --set, which
    stand between flags and environment. Raises ConfigError that names the place.
    """
    env = os.environ if env is None else env
    stage = stage_of(params_type)
    known = _types(params_type)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(known, "default")

    def take(key: str, value: Any, origin: str) -> None:
        values[key] = value
        origins[key] = origin

    if preset:
        loaded = load_preset(preset)
        for key, value in loaded.values.get(stage, {}).items():
            take(key, value, f"preset {loaded.origins[stage][key]}")
    for variable, text in sorted(env.items()):
        named = _field_of_variable(variable, stage, known)
        if named:
            take(named, _parse(text, known[named], variable), f"environment {variable}")
    for key, text in _settings_of(stage, settings, known):
        take(key, _parse(text, known[key], f"--set {stage}.{key}"), "--set")
    for key, value in (flags or {}).items():
        if value is not None:
            _check_field(stage, key, known, "the flags")
            take(key, _fit(value, known[key], f"--{key.replace('_', '-')}"), "flag")
    try:
        return Resolved(params_type(**values), origins)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the settings of {stage} do not fit together: {error}") from None


def from_table(kind: type[P], table: Any, where: str, ready: Mapping[str, Any] | None = None) -> P:
    """A frozen dataclass from a TOML table; `ready` are fields that are built already.

    Raises ConfigError for an unknown or missing field, or a value of the wrong type.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is not a table")
    known, ready = _types(kind), dict(ready or {})
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known or key in ready:
            raise ConfigError(f"{where} has no setting {key!r}", _suggest(key, known))
        values[key] = _fit(value, known[key], f"{where}: {key}")
    try:
        return kind(**values, **ready)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from None


def check_settings(settings: Iterable[str]) -> None:
    """Raise ConfigError for a --set of a stage or field that there is not."""
    for setting in settings:
        stage, key, _ = _split(setting)
        _check_field(stage, key, _types(params_type(stage)), "--set")


def defaults(params_type: type[Any]) -> dict[str, tuple[Any, str]]:
    """Field -> (default, help text) of a Params class."""
    found = {}
    for f in fields(params_type):
        value = f.default
        if value is MISSING:
            value = f.default_factory() if f.default_factory is not MISSING else None
        found[f.name] = (value, str(f.metadata.get("help", "")))
    return found


def _read(name: str) -> tuple[str, Path | None]:
    path = Path(name)
    if name.endswith(".toml") or path.parent != Path("."):
        try:
            return path.read_text("utf-8"), path.parent
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot read the preset {name}: {why}") from None
    if name not in preset_names():
        raise ConfigError(f"there is no preset {name!r}", _suggest(name, preset_names()))
    return (resources.files("podtool.presets") / f"{name}.toml").read_text("utf-8"), None


def _types(params_type: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(params_type)
    return {f.name: hints[f.name] for f in fields(params_type) if f.init}


def _field_of_variable(variable: str, stage: str, known: Mapping[str, Any]) -> str | None:
    prefix = f"PODTOOL_{stage.upper()}_"
    if not variable.startswith(prefix):
        return None
    key = variable.removeprefix(prefix).lower()
    _check_field(stage, key, known, "the environment")
    return key


def _settings_of(
    stage: str, settings: Sequence[str], known: Mapping[str, Any]
) -> list[tuple[str, str]]:
    found = []
    for setting in settings:
        named, key, text = _split(setting)
        # A setting of another stage is not for this one, but has to exist all the same.
        _check_field(named, key, known if named == stage else _types(params_type(named)), "--set")
        if named == stage:
            found.append((key, text))
    return found


def _split(setting: str) -> tuple[str, str, str]:
    name, equals, text = setting.partition("=")
    stage, dot, key = name.strip().partition(".")
    if not equals or not dot:
        raise ConfigError(f"--set {setting!r} is not STAGE.FIELD=VALUE")
    if stage not in STAGES:
        raise ConfigError(f"--set names no stage: {stage!r}", _suggest(stage, STAGES))
    return stage, key.replace("-", "_"), text.strip()


def _check_field(stage: str, key: str, known: Iterable[str], where: str) -> None:
    if key not in known:
        raise ConfigError(f"{where}: {stage} has no setting {key!r}", _suggest(key, known))


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}"


def _parse(text: str, kind: Any, where: str) -> Any:
    """Text from the environment or --set -> a value of that type."""
    kinds = _options(kind)
    if type(None) in kinds and text.lower() in ("", "none"):
        return None
    for option in kinds:
        if option is bool and text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
        if option is str or typing.get_origin(option) is typing.Literal:
            return _fit(text, kind, where)
        if typing.get_origin(option) is tuple:
            return _fit([part.strip() for part in text.split(",") if part.strip()], kind, where)
    raise ConfigError(f"{where}: {text!r} is not {_name(kind)}")


def _fit(value: Any, kind: Any, where: str) -> Any:
    """A typed value (from TOML or a flag) checked against the field's type."""
    for option in _options(kind):
        origin = typing.get_origin(option)
        if origin is typing.Literal and value in typing.get_args(option):
            return value
        if origin is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(option)[0]
            return tuple(_fit(v, inner, where) for v in value)
        if origin is not None or not isinstance(option, type):
            continue
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return value
    raise ConfigError(f"{where}: {value!r} is not {_name(kind)}")


def _options(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    said = []
    for option in _options(kind):
        if typing.get_origin(option) is typing.Literal:
            said.append("one of " + ", ".join(map(str, typing.get_args(option))))
        elif option is type(None):
            said.append("none")
        else:
            said.append(names.get(option, str(option)))
    return " or ".join(said)
