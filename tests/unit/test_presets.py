"""Every shipped preset loads, says what it is for, and names only settings that exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields

import pytest
from typer.testing import Result

from podtool import config


@pytest.mark.parametrize("name", config.preset_names())
def test_preset(name: str) -> None:
    preset = config.load_preset(name)
    assert preset.about
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
