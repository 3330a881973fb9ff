"""Out of a training's folder: the best weights, their ONNX form, a model card, a table entry."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podtool.audio import sha256_of
from podtool.errors import InputError, ModelError, OutputError
from podtool.store.table import ModelTable
from podtool.training import files
from podtool.training.weights import halved

BEST, ABOUT, CURVE = "best.safetensors", "training.json", "curve.csv"  # as the trainer names them
_SEPARATOR = ("podtool train separator", "podtool.engines.separation_podtool", "separator.onnx")
_CONVERTER = ("podtool train converter", "podtool.engines.voice_podtool", "converter.onnx")
# Task of a recipe -> stage of the model, and (command, engine with `convert`, file it makes).
_TASKS = {
    "background": ("separation", _SEPARATOR),
    "talkers": ("talkers", _SEPARATOR),
    "converter": ("conversion", _CONVERTER),
}


@dataclass(frozen=True, slots=True)
class Exported:
    """The files that were written, and the lines for models.toml where weights are among them."""

    files: tuple[Path, ...]
    entry: str


def export(
    folder: Path,
    target: Path,
    name: str | None = None,
    licence: str = "not stated",
    force: bool = False,
    half: bool = False,
) -> Exported:
    """Write NAME.safetensors, NAME.onnx, NAME.md and NAME.png into the folder `target`.

    A `target` that ends in one of these suffixes is that one file. `name` is the model's id, by
    default the recipe's name. `half` writes the weights in half precision, and their ONNX form
    from those. Raises InputError where `folder` holds no validated training, OutputError,
    ModelError.
    """
    facts = _facts(folder)
    name = name or str(facts["recipe"]["name"])
    made = {".safetensors", ".onnx", ".md", ".png"}
    if target.suffix in made:
        places = {target.suffix: target}
    else:
        places = {suffix: target / f"{name}{suffix}" for suffix in sorted(made)}
    if taken := [path for path in places.values() if path.exists() and not force]:
        raise OutputError(f"{taken[0]} exists", "Give --force to overwrite it.")
    weights = (folder / BEST).read_bytes()
    if half:
        weights = halved(weights)
    entry = ""
    for suffix, path in places.items():
        if suffix == ".safetensors":
            files.write(path, weights)
            entry = table_entry(name, licence, facts, path)
        elif suffix == ".onnx":
            files.write(path, _onnx(weights, facts["recipe"]["task"]))
        elif suffix == ".md":
            files.write(path, _card(folder, weights, name, licence, facts).encode())
        elif (picture := (folder / CURVE).with_suffix(suffix)).is_file():
            files.write(path, picture.read_bytes())
    return Exported(tuple(p for p in places.values() if p.is_file()), entry)


def table_entry(name: str, licence: str, facts: dict[str, Any], weights: Path) -> str:
    """The lines of models.toml by which the store takes these weights from where they lie."""
    recipe = facts["recipe"]
    stage, (command, engine, converted) = _TASKS[recipe["task"]]
    model = {
        "stage": stage,
        "about": recipe["about"] or recipe["name"],
        "licence": licence,
        "source": f"{command}, recipe {recipe['name']} {facts['digest']}",
    }
    file = {
        "path": weights.name,
        "from": str(weights.resolve()),
        "sha256": sha256_of(weights),
        "bytes": weights.stat().st_size,
        "convert": f"{engine}:convert",
        "converted": converted,
    }
    lines = [f"[{json.dumps(name)}]", *_pairs(model), "", f"[[{json.dumps(name)}.files]]"]
    text = "\n".join([*lines, *_pairs(file)]) + "\n"
    ModelTable.parse(text, "the entry")  # an id or a licence that cannot stand in a table
    return text


def add_entry(entry: str, table: Path) -> None:
    """Append an entry to the user's own table. Raises ModelError where its id is taken."""
    ids = ModelTable.parse(entry, "the entry").models.keys()
    known = ModelTable.shipped().with_user_table(table).models.keys()
    if taken := sorted(ids & known):
        raise ModelError(f"there is a model {', '.join(taken)} already", "Give another --id.")
    before = table.read_text("utf-8").rstrip() + "\n\n" if table.exists() else ""
    files.write(table, (before + entry).encode())


def _pairs(values: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not (folder / BEST).is_file():
        raise InputError(
            f"{folder} holds no validated training: there is no {BEST}",
            "podtool train writes it at its first validation.",
        )
    try:
        facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
        facts["recipe"]["name"], facts["digest"], facts["credits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", "Run `podtool train` on the folder again."
        ) from None
    return facts


def _card(folder: Path, content: bytes, name: str, licence: str, facts: dict[str, Any]) -> str:
    from podtool.training.card import Weights, read_curve, write_card

    parameters, step = _shape(folder / BEST)
    sha256 = hashlib.sha256(content).hexdigest()
    weights = Weights(f"{name}.safetensors", sha256, len(content), parameters, step)
    try:
        rows = read_curve(folder / CURVE)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / CURVE} cannot be read: {error}") from None
    return write_card(name, licence, facts, rows, weights)


def _shape(path: Path) -> tuple[int, int]:
    """Number of parameters, and the step that they are of."""
    from math import prod

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            sizes = [prod(file.get_slice(key).get_shape()) for key in file.keys()]  # noqa: SIM118
            step = int((file.metadata() or {})["step"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    return sum(sizes), step


def _onnx(weights: bytes, task: str) -> bytes:
    import contextlib
    from importlib import import_module

    _, engine, converted = _TASKS[task][1]
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(None):
        source, target = Path(scratch) / BEST, Path(scratch) / converted
        source.write_bytes(weights)
        import_module(engine).convert(source, target)
        return target.read_bytes()
