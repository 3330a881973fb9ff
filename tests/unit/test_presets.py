"""Every shipped preset loads, says what it is for, and names only settings that exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import Result

from podtool import config
from podtool.errors import ConfigError


@pytest.mark.parametrize("name", config.preset_names())
def test_preset(name: str) -> None:
    preset = config.load_preset(name)
    assert preset.about and preset.why
    for stage, values in preset.values.items():
        kind = config.params_type(stage)
        resolved = config.resolve(kind, preset=name, env={})
        for key, value in values.items():
            assert getattr(resolved.params, key) == value
            assert resolved.origins[key].startswith("preset ")


def test_every_setting_says_what_it_does() -> None:
    silent = [
        f"{stage}.{f.name}"
        for stage in config.STAGES
        for f in fields(config.params_type(stage))
        if not f.metadata.get("help")
    ]
    assert silent == []


def test_list(run: Callable[..., Result]) -> None:
    shown = run("presets", "list", "--json")
    assert [json.loads(line)["name"] for line in shown.stdout.splitlines()] == config.preset_names()


@pytest.mark.parametrize("name", config.preset_names())
def test_explain_tells_what_it_sets_and_why(name: str, run: Callable[..., Result]) -> None:
    shown = run("presets", "explain", name)
    assert shown.exit_code == 0, shown.stderr
    preset = config.load_preset(name)
    assert preset.about in shown.stdout and " ".join(preset.why.split()) in shown.stdout
    told = "".join(shown.stdout.split())
    for stage, values in preset.values.items():
        assert all(f"{stage}.{key}" in told for key in values)
    assert "separate.overlap_s" not in told
    assert "separate.overlap_s" in "".join(run("presets", "explain", name, "--all").stdout.split())


def test_explain_says_which_of_its_engines_run_here(
    run: Callable[..., Result], own_home: Path
) -> None:
    shown = run("presets", "explain", "apple-silicon").stdout
    assert "separation demucs: the weights of htdemucs are missing" in shown
    assert "device mps:" in shown and "transcription mlx-whisper: " in shown


def test_the_device_of_a_preset_gives_way_to_the_flag(tmp_path: Path) -> None:
    import importlib

    shared = importlib.import_module("podtool.commands.shared")
    assert shared.context(None, "cuda").device == "cuda"
    assert shared.context("cpu", "cuda").device == "cpu"
    assert shared.context(None, "cuda").worker.fallback == ("auto",)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('device = "tpu"\n')
    with pytest.raises(ConfigError, match="device is one of"):
        config.load_preset(str(wrong))
