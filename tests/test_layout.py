"""The rules of the layout: who may import whom, what is packaged, what every command says."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "src" / "podtool").rglob("*.py"))
COMMANDS = sorted((ROOT / "commands").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BACKENDS = {
    "torch", "torchaudio", "onnxruntime", "onnx", "pyworld", "pocketsphinx", "demucs",
    "speechbrain", "mlx", "mlx_whisper", "espeakng_loader", "sounddevice", "meeteval", "pyannote",
    "librosa", "moonshine_voice", "transformers",
}  # fmt: skip


NETWORKS = ("separation_podtool_model", "voice_podtool_model")
TRAINING = ("podtool.training", *(f"podtool.engines.{name}" for name in NETWORKS))


def of_training(path: Path) -> bool:
    """Modules of torch networks and their training, which nothing else loads early."""
    return path.parent.name == "training" or path.stem in NETWORKS


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def at_import_time(tree: ast.AST) -> Iterator[str]:
    """Modules imported by the mere import of the file: not in functions or TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)
        yield from at_import_time(node)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_knows_nothing_of_its_command_line(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for name in imported(tree):
        assert name.split(".")[0] != "typer", "Typer belongs to commands/"
        assert not name.startswith(("podtool.commands", "commands", "podtool.presets")), name
    if path.name != "demo_music.py":
        calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
        names = {f.id for f in calls if isinstance(f, ast.Name)}
        if path.name != "pip_fetch.py":  # a program of its own, run in a process of its own
            assert "print" not in names, "the library never prints"
    early = set(at_import_time(tree))
    if not of_training(path):
        heavy = {name.split(".")[0] for name in early} & BACKENDS
        assert not heavy, f"{heavy} must be imported inside functions"
        networks = {name for name in early if name.startswith(TRAINING)}
        assert not networks, f"{networks} loads torch: to be imported inside functions"
    assert ast.get_docstring(tree) or path.stat().st_size == 0, "a module says what it owns"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda p: p.name)
def test_command_modules_import_nothing_heavy(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"typer", "__future__"}
    tree = ast.parse(path.read_text())
    assert {n.split(".")[0] for n in at_import_time(tree)} <= allowed
    assert ast.get_docstring(tree)


def test_packages_are_the_folders() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    below = {p.parent for p in LIBRARY}
    found = {".".join(p.relative_to(ROOT / "src").parts) for p in below}
    assert listed == found | {"podtool.commands", "podtool.presets"}
    for folder in below | {ROOT / "commands", ROOT / "presets"}:
        assert (folder / "__init__.py").exists(), folder
    assert not (ROOT / "src" / "podtool" / "commands").exists()
    assert not (ROOT / "src" / "podtool" / "presets").exists()


def test_constraints_pin_every_dependency() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pinned = {
        line.split("==")[0].lower().replace("_", "-").replace(".", "-")
        for line in text.splitlines()
        if "==" in line
    }
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in [
        *PROJECT["project"]["dependencies"],
        *(r for e in extras.values() for r in e),
    ]:
        name = requirement
        for mark in "[<>=!; ":
            name = name.split(mark)[0]
        if name != "pip":  # the environment's own; any that is new enough
            assert name.lower().replace("_", "-").replace(".", "-") in pinned, requirement
    assert "torch==2.13.0" in text.splitlines()
    assert "nvidia" not in text and "@ file" not in text


def commands_of(app: Any) -> dict[str, Any]:
    from typer.main import get_command

    found: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found[name] = command
        for sub, below in getattr(command, "commands", {}).items():
            found[f"{name} {sub}"] = below
    return found


def test_every_command_has_help(app: Any, run: Callable[..., Result]) -> None:
    found = commands_of(app)
    for name, command in found.items():
        assert command.help, f"podtool {name} says nothing of itself"
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert parameter.help, f"podtool {name} {parameter.opts[0]}"
        assert run(*name.split(), "--help").exit_code == 0
    assert {
        "separate", "diarize", "transcribe", "live", "clone", "synthesize", "reconstruct",
        "replace", "export", "import", "evaluate", "check", "models", "engines", "presets",
        "speakers", "runs", "doctor", "train separator", "train export",
    } <= set(found)  # fmt: skip


def test_every_command_is_in_the_readme(app: Any) -> None:
    readme = (ROOT / "README.md").read_text()
    for name in commands_of(app):
        assert f"`{name.split()[0]}`" in readme or f"podtool {name.split()[0]}" in readme, name


def test_help_loads_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; from importlib import import_module\n"
        "try: import_module('podtool.commands').app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'scipy', 'onnxruntime', 'soundfile'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "diarize" in done.stdout


def test_presets_and_the_model_table_are_package_data() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    assert data["podtool.presets"] == ["*.toml"] and "models.toml" in data["podtool.store"]
    assert data["podtool.training"] == ["recipes/*.toml"]
    assert importlib.util.find_spec("podtool.presets") is not None
