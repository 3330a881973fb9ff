"""A recipe: everything that a training depends on but the data's place, as a TOML file."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from podtool.config import from_table
from podtool.engines.separation_podtool_model import NetworkParams
from podtool.errors import ConfigError
from podtool.training.corpus import RATE, DataParams
from podtool.training.losses import LossParams
from podtool.training.mixing import MixingParams


@dataclass(frozen=True, slots=True)
class TrainingParams:
    """The recipe's [training] table."""

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
    rooms: int = 200  # simulated

    def __post_init__(self) -> None:
        for name in (
            "steps", "batch", "accumulate", "checkpoint_every", "validate_every",
            "validation_scenes", "patience", "rooms",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        if not 0 <= self.ema < 1 or not 0 <= self.decay_share <= 1:
            raise ValueError("ema and decay_share are shares of 1")


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
        facts = asdict(self)
        for free in ("steps", "decay_share", "checkpoint_every", "patience", "validate_every"):
            del facts["training"][free]
        del facts["about"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


_TABLES: dict[str, type[Any]] = {
    "network": NetworkParams,
    "data": DataParams,
    "mixing": MixingParams,
    "loss": LossParams,
    "training": TrainingParams,
}


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files("podtool.training") / "recipes"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def read_recipe(name: str | Path) -> Recipe:
    """A shipped recipe by name, or a TOML file by path.

    Raises ConfigError that names what is wrong in it.
    """
    path = Path(name)
    try:
        data = tomllib.loads(_source(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the recipe {path}: {why}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the recipe {path} is not valid TOML: {error}") from None
    where = f"the recipe {path.name}"
    plain = {k: v for k, v in data.items() if k not in _TABLES}
    tables = {
        k: from_table(kind, data.get(k, {}), f"{where}, [{k}]") for k, kind in _TABLES.items()
    }
    recipe = from_table(Recipe, plain, where, ready=tables)
    if recipe.network.sample_rate != RATE:
        raise ConfigError(f"{where}: network.sample_rate is {RATE}, as the scenes are")
    talkers = 1 if recipe.task == "background" else recipe.mixing.talkers
    if recipe.network.talkers != talkers:
        have = recipe.network.talkers
        raise ConfigError(f"{where}: the network gives {have} talkers, the task {talkers}")
    return recipe


def _source(path: Path) -> Traversable:
    if path.suffix == ".toml" or path.parent != Path("."):
        return path
    names = recipe_names()
    if path.name not in names:
        raise ConfigError(f"there is no recipe {path.name!r}", f"Shipped: {', '.join(names)}.")
    return resources.files("podtool.training") / "recipes" / f"{path.name}.toml"
