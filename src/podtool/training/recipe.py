"""A recipe: everything that a training depends on but the data's place, as a TOML file."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeVar

from podtool.config import from_table
from podtool.engines.separation_podtool_model import NetworkParams
from podtool.engines.voice_podtool_model import ConverterParams
from podtool.errors import ConfigError
from podtool.training.corpus import RATE, DataParams
from podtool.training.losses import LossParams
from podtool.training.mixing import MixingParams

R = TypeVar("R", bound="Recipe | ConverterRecipe")


@dataclass(frozen=True, slots=True)
class CourseParams:
    """What any training is told of its steps: a recipe's [training] table."""

    steps: int = 10000
    batch: int = 4  # scenes of a step
    accumulate: int = 1  # batches of a step
    lr: float = 1e-3
    warmup: int = 200  # steps
    decay_share: float = 0.2  # of all steps: the learning rate falls to zero over the last of them
    weight_decay: float = 1e-2
    clip: float = 5.0  # norm of the gradient
    ema: float = 0.999  # decay of the averaged weights, which are what is kept
    precision: Literal["bf16", "fp32"] = "bf16"
    checkpoint_every: int = 200  # steps
    validate_every: int = 500
    validation_scenes: int = 60
    patience: int = 20  # validations without a better one, then training stops

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.type == "int" and f.name != "warmup" and getattr(self, f.name) < 1:
                raise ValueError(f"{f.name} is at least 1")
        if not 0 <= self.ema < 1 or not 0 <= self.decay_share <= 1:
            raise ValueError("ema and decay_share are shares of 1")


@dataclass(frozen=True, slots=True)
class TrainingParams(CourseParams):
    """The same of a separator's training."""

    rooms: int = 200  # simulated


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to train, on what, how. `task`: speech from `background`, or `talkers` apart."""

    name: str
    task: Literal["background", "talkers"]
    about: str = ""
    seed: int = 0
    network: NetworkParams = field(default_factory=NetworkParams)
    data: DataParams = field(default_factory=DataParams)
    mixing: MixingParams = field(default_factory=MixingParams)
    loss: LossParams = field(default_factory=LossParams)
    training: TrainingParams = field(default_factory=TrainingParams)

    @property
    def digest(self) -> str:
        """What a checkpoint must have been trained with; the length of the training may change."""
        return _digest(self)


@dataclass(frozen=True, slots=True)
class ExampleParams:
    """The [examples] table of a converter's recipe."""

    minutes: float = 4.0  # at most, of each person
    copies: int = 1  # disguised ones that the recogniser hears of each utterance
    frames: int = 200  # of 10 ms, of a stretch
    said: int = 2  # stretches to be said again
    known: int = 3  # stretches that show the voice
    disguise_share: float = 0.85  # of the examples whose sounds are heard disguised
    warp: float = 0.2  # up to which formants of the shape are moved, natural log

    def __post_init__(self) -> None:
        if min(self.copies, self.frames, self.said, self.known) < 1 or self.minutes <= 0:
            raise ValueError("copies, frames, said and known are at least 1, minutes above 0")


@dataclass(frozen=True, slots=True)
class ConverterLoss:
    """The [loss] table of a converter's recipe: weights beside that of the envelope's error, which
    is in natural log power."""

    change: float = 0.5  # of the envelope, from frame to frame
    phones: float = 0.2  # cross-entropy


@dataclass(frozen=True, slots=True)
class ConverterRecipe:
    """How to train a voice converter."""

    name: str
    task: Literal["converter"]
    about: str = ""
    seed: int = 0
    network: ConverterParams = field(default_factory=ConverterParams)
    data: DataParams = field(default_factory=DataParams)
    examples: ExampleParams = field(default_factory=ExampleParams)
    loss: ConverterLoss = field(default_factory=ConverterLoss)
    training: CourseParams = field(default_factory=CourseParams)

    @property
    def digest(self) -> str:
        """As of `Recipe`."""
        return _digest(self)


def _digest(recipe: Recipe | ConverterRecipe) -> str:
    facts = asdict(recipe)
    for free in ("steps", "decay_share", "checkpoint_every", "patience", "validate_every"):
        del facts["training"][free]
    del facts["about"]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


_TABLES: dict[type[Any], dict[str, type[Any]]] = {
    Recipe: {
        "network": NetworkParams,
        "data": DataParams,
        "mixing": MixingParams,
        "loss": LossParams,
        "training": TrainingParams,
    },
    ConverterRecipe: {
        "network": ConverterParams,
        "data": DataParams,
        "examples": ExampleParams,
        "loss": ConverterLoss,
        "training": CourseParams,
    },
}
# What the other kind of recipe is for, and the command that takes it.
_OTHER: dict[type[Any], tuple[tuple[str, ...], str]] = {
    Recipe: (("converter",), "converter"),
    ConverterRecipe: (("background", "talkers"), "separator"),
}


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files("podtool.training") / "recipes"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def read_recipe(name: str | Path) -> Recipe:
    """A separator's recipe: a shipped one by name, or a TOML file by path.

    Raises ConfigError that names what is wrong in it.
    """
    recipe, where = _read(name, Recipe)
    if recipe.network.sample_rate != RATE:
        raise ConfigError(f"{where}: network.sample_rate is {RATE}, as the scenes are")
    talkers = 1 if recipe.task == "background" else recipe.mixing.talkers
    if recipe.network.talkers != talkers:
        have = recipe.network.talkers
        raise ConfigError(f"{where}: the network gives {have} talkers, the task {talkers}")
    return recipe


def read_converter_recipe(name: str | Path) -> ConverterRecipe:
    """The same for a voice converter."""
    return _read(name, ConverterRecipe)[0]


def _read(name: str | Path, kind: type[R]) -> tuple[R, str]:
    path = Path(name)
    try:
        data = tomllib.loads(_source(path, kind).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the recipe {path}: {why}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the recipe {path} is not valid TOML: {error}") from None
    where = f"the recipe {path.name}"
    other, command = _OTHER[kind]
    if data.get("task") in other:
        raise ConfigError(f"{where} has the task {data['task']!r}", f"podtool train {command}")
    kinds = _TABLES[kind]
    plain = {k: v for k, v in data.items() if k not in kinds}
    tables = {k: from_table(t, data.get(k, {}), f"{where}, [{k}]") for k, t in kinds.items()}
    return from_table(kind, plain, where, ready=tables), where


def _source(path: Path, kind: type[Any]) -> Traversable:
    if path.suffix == ".toml" or path.parent != Path("."):
        return path
    names = recipe_names()
    if path.name not in names:
        tasks = {n: tomllib.loads(_shipped(n).read_text("utf-8"))["task"] for n in names}
        fitting = ", ".join(n for n in names if tasks[n] not in _OTHER[kind][0])
        raise ConfigError(f"there is no recipe {path.name!r}", f"Shipped: {fitting}.")
    return _shipped(path.name)


def _shipped(name: str) -> Traversable:
    return resources.files("podtool.training") / "recipes" / f"{name}.toml"
