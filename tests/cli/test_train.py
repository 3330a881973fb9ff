"""`podtool train`: a whole training from the command line, what stops it, and its export."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from podtool.rundir.lock import FolderLock

Run = Callable[..., Result]
Tiny = tuple[Path, Path]


def rows_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture()
def trained(tiny_trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_trained, tmp_path / "run"))


def test_a_training_writes_weights_curve_card_and_rows(tiny_trained: Path) -> None:
    folder, stderr = tiny_trained, (tiny_trained / "stderr.txt").read_text()
    told = re.findall(r"step (\d) of 6, .* left: validation", stderr)
    assert told == ["2", "4", "6"]  # a line per validation
    first, *rest = rows_of((folder / "rows.jsonl").read_text())
    assert first["kind"] == "provenance" and first["stage"] == "train" and first["seed"] == 3
    values = {row["name"]: row for row in rest}
    assert values["steps"]["value"] == 6 and values["validation_loss"]["unit"] == "dB"
    assert "si_sdri_2" in values
    for name in ("last.pt", "best.safetensors", "curve.csv", "curve.png", "training.json"):
        assert (folder / name).stat().st_size > 0
    exported = {path.name for path in (folder / "export").iterdir()}
    assert exported == {"tiny.safetensors", "tiny.onnx", "tiny.md", "tiny.png"}
    card = (folder / "export" / "tiny.md").read_text()
    assert "80% of it is from Buzzes: **figures on Buzzes would be worthless**" in card
    assert "| Hisses | CC0-1.0 | 1 |" in card and "| licence | MIT |" in card
    assert f"{values['si_sdri_2']['value']:.2f}" in card
    assert "for validation, speakers: v4, v5" in card


def test_a_finished_training_says_so_again_and_more_steps_go_on(
    trained: Path, tiny_training: Tiny, run: Run
) -> None:
    recipe, manifest = tiny_training
    command = ("train", "separator", recipe, "--data", manifest, "-o", trained)
    again = run(*command)
    assert again.exit_code == 0 and "going on from step 6 of 6" in again.stderr
    assert rows_of(again.stdout)[1]["value"] == 6
    more = run(*command, "--steps", 8)
    assert more.exit_code == 0 and rows_of(more.stdout)[1]["value"] == 8
    lines = (trained / "curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "2", "4", "6", "8"]


def test_exports_can_be_pulled_into_the_store(
    trained: Path, run: Run, tmp_path: Path, own_home: Path
) -> None:
    target = tmp_path / "out"
    done = run("train", "export", trained, "-o", target, "--id", "my-talkers", "--add")
    assert done.exit_code == 0, done.stderr
    entry = tomllib.loads(done.stdout)["my-talkers"]
    assert entry["stage"] == "talkers" and entry["files"][0]["path"] == "my-talkers.safetensors"
    assert tomllib.loads((own_home / "models.toml").read_text()) == tomllib.loads(done.stdout)
    pulled = run("models", "pull", "my-talkers")
    assert pulled.exit_code == 0, pulled.stderr
    folder = Path(run("models", "path", "my-talkers").stdout.strip())
    assert (folder / "separator.onnx").is_file()

    taken = run("train", "export", trained, "-o", target, "--id", "my-talkers", "--add", "--force")
    assert taken.exit_code == 6 and "my-talkers" in taken.stderr
    there = run("train", "export", trained, "-o", target, "--id", "my-talkers")
    assert there.exit_code == 8 and "--force" in there.stderr


def test_one_file_of_an_export(trained: Path, run: Run, tmp_path: Path) -> None:
    card = tmp_path / "docs" / "card.md"
    assert run("train", "export", trained, "-o", card).exit_code == 0
    assert card.read_text().startswith("# tiny\n") and list(card.parent.iterdir()) == [card]
    add = run("train", "export", trained, "-o", tmp_path / "x.onnx", "--add")
    assert add.exit_code == 2 and "--add" in add.stderr


def test_an_export_in_half_precision_is_half_as_large_and_separates_the_same(
    trained: Path, run: Run, tmp_path: Path
) -> None:
    import torch

    from podtool.engines.separation_podtool_model import load, separate

    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    run("train", "export", trained, "-o", whole)
    done = run("train", "export", trained, "-o", half, "--half")
    assert done.exit_code == 0, done.stderr
    assert tomllib.loads(done.stdout)["tiny"]["files"][0]["bytes"] == half.stat().st_size
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    mixture, counts = torch.randn(1, 8000, generator=torch.manual_seed(1)), torch.tensor([2])
    with torch.inference_mode():
        a, b = (separate(load(path), mixture, counts) for path in (whole, half))
    assert 0 < (a - b).square().sum() < 1e-4 * a.square().sum()


def test_exports_of_what_is_no_training(run: Run, tmp_path: Path, trained: Path) -> None:
    nothing = run("train", "export", tmp_path, "-o", tmp_path / "out")
    assert nothing.exit_code == 3 and "no validated training" in nothing.stderr
    (trained / "best.safetensors").write_bytes(b"not weights")
    broken = run("train", "export", trained, "-o", tmp_path / "out")
    assert broken.exit_code == 6 and "Traceback" not in broken.stderr
    (trained / "training.json").write_text("[]")
    assert run("train", "export", trained, "-o", tmp_path / "out").exit_code == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"path": "../v0.wav"}, "leads out of the manifest's folder"),
        ({"path": "gone.wav"}, "gone.wav"),
        ({"kind": 3}, "is not a row"),
        (None, "no speech for the split"),
    ],
)
def test_hostile_manifests(
    row: dict[str, object] | None, said: str, tiny_training: Tiny, run: Run, tmp_path: Path
) -> None:
    recipe, manifest = tiny_training
    if row is None:
        manifest.write_text("")
    else:
        entry = {"path": "v0.wav", "kind": "read", **row} if "path" in row else row
        manifest.write_text(manifest.read_text() + json.dumps(entry) + "\n")
    done = run("train", "separator", recipe, "--data", manifest, "-o", tmp_path / "run")
    assert done.exit_code == 3 and said in done.stderr
    assert len(done.stderr.splitlines()) <= 2 and not done.stdout


def test_wrong_recipes(tiny_training: Tiny, run: Run, tmp_path: Path) -> None:
    recipe, manifest = tiny_training
    rest = ("--data", manifest, "-o", tmp_path / "run")
    unknown = run("train", "separator", "backgruond", *rest)
    assert unknown.exit_code == 4 and "background, talkers" in unknown.stderr
    missing = run("train", "separator", tmp_path / "none.toml", *rest)
    assert missing.exit_code == 4 and "none.toml" in missing.stderr
    recipe.write_text(recipe.read_text().replace("warmup", "warm_up"))
    wrong = run("train", "separator", recipe, *rest)
    assert wrong.exit_code == 4 and "Did you mean warmup?" in wrong.stderr
    assert not (tmp_path / "run").exists()


def test_another_recipes_folder_and_broken_checkpoints(
    trained: Path, tiny_training: Tiny, run: Run
) -> None:
    recipe, manifest = tiny_training
    command = ("train", "separator", recipe, "--data", manifest, "-o", trained)
    recipe.write_text(recipe.read_text().replace("channels = 8", "channels = 12"))
    other = run(*command)
    assert other.exit_code == 4 and "another recipe" in other.stderr and "--changed" in other.stderr
    last = trained / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    broken = run(*command)
    assert broken.exit_code == 6 and "last.pt cannot be read" in broken.stderr
    assert len(broken.stderr.splitlines()) == 2


def test_a_changed_recipe_goes_on_when_told(trained: Path, tiny_training: Tiny, run: Run) -> None:
    recipe, manifest = tiny_training
    recipe.write_text(recipe.read_text().replace("seconds = 0.5", "seconds = 0.6"))
    command = ("train", "separator", recipe, "--data", manifest, "-o", trained)
    done = run(*command, "--changed", "--steps", 8)
    assert done.exit_code == 0, done.stderr
    assert "| to step 6 | recipe of digest" in (trained / "export" / "tiny.md").read_text()


def test_one_process_at_a_time(trained: Path, tiny_training: Tiny, run: Run) -> None:
    recipe, manifest = tiny_training
    with FolderLock(trained / "lock"):
        done = run("train", "separator", recipe, "--data", manifest, "-o", trained)
    assert done.exit_code == 8 and "in use by process" in done.stderr and "-o" in done.stderr


def test_names_that_no_manifest_has_are_told(tiny_training: Tiny, run: Run, tmp_path: Path) -> None:
    recipe, manifest = tiny_training
    recipe.write_text(recipe.read_text().replace('["n1.wav"]', '["n1.wav", "n7.wav"]'))
    done = run("train", "separator", recipe, "--data", manifest, "-o", tmp_path / "x", "--steps", 1)
    assert done.exit_code == 0 and "no manifest has: n7.wav" in done.stderr


def test_devices(tiny_training: Tiny, run: Run, tmp_path: Path) -> None:
    recipe, manifest = tiny_training
    command = ("train", "separator", recipe, "--data", manifest, "-o", tmp_path / "run")
    assert run(*command, "--device", "mlx").exit_code == 2


def test_a_missing_extra_is_one_line_with_the_remedy(
    tiny_training: Tiny, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    recipe, manifest = tiny_training
    done = run("train", "separator", recipe, "--data", manifest, "-o", tmp_path / "run")
    assert done.exit_code == 5
    assert done.stderr.splitlines() == [
        "podtool: engine-unavailable: training needs matplotlib",
        "  hint: pip install 'podtool[train]'",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_ctrl_c_saves_and_the_same_command_goes_on(
    workers: int, tiny_training: Tiny, run: Run, tmp_path: Path
) -> None:
    recipe, manifest = tiny_training
    text = recipe.read_text().replace("steps = 6", "steps = 100000")
    recipe.write_text(text.replace("checkpoint_every = 2", "checkpoint_every = 100000"))
    folder = tmp_path / "run"
    command = ("train", "separator", recipe, "--data", manifest, "-o", folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "podtool", *map(str, command), f"--workers={workers}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "validation" in line, line
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers hear it too
    began = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and not out, err
    assert "Traceback" not in err and time.monotonic() - began < 20
    found = re.search(r"saved at step (\d+) of 100000; the same command goes on from there", err)
    assert found
    more = run(*command, "--steps", int(found[1]) + 1)
    assert more.exit_code == 0 and f"going on from step {found[1]} " in more.stderr
