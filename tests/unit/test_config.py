"""Settings: flags > --set > environment > preset > defaults, and nothing unknown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from typer.testing import Result

from podtool import config
from podtool.errors import ConfigError
from podtool.stages.diarize import DiarizeParams


@dataclass(frozen=True)
class DiarizeLikeParams:
    """Every type that a Params class may have."""

    count: int | None = field(default=None, metadata={"help": "how many"})
    share: float = 0.5
    loud: bool = True
    names: tuple[str, ...] = ()
    mode: Literal["slow", "fast"] = "fast"

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError("share is at most 1")


@pytest.fixture(autouse=True)
def like_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.STAGES, "diarizelike", f"{__name__}:DiarizeLikeParams")
    monkeypatch.setattr(config, "params_type", _params_type)


def _params_type(stage: str) -> type:
    return {"diarizelike": DiarizeLikeParams, "diarize": DiarizeParams}[stage]


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_precedence_and_origins(tmp_path: Path) -> None:
    preset = write(tmp_path, "p.toml", "[diarizelike]\nshare = 0.1\ncount = 1\nloud = false\n")
    env = {"PODTOOL_DIARIZELIKE_SHARE": "0.2", "PODTOOL_DIARIZELIKE_COUNT": "2", "OTHER": "x"}
    flags = {"share": 0.4, "names": None}
    found = config.resolve(
        DiarizeLikeParams, flags, preset, ["diarizelike.share=0.3", "diarizelike.count=3"], env
    )
    assert found.params == DiarizeLikeParams(count=3, share=0.4, loud=False)
    assert found.origins == {
        "count": "--set",
        "share": "flag",
        "loud": f"preset {preset}",
        "names": "default",
        "mode": "default",
    }


def test_values_take_the_type_of_the_field() -> None:
    env = {
        "PODTOOL_DIARIZELIKE_COUNT": "none",
        "PODTOOL_DIARIZELIKE_LOUD": "no",
        "PODTOOL_DIARIZELIKE_NAMES": "a, b",
        "PODTOOL_DIARIZELIKE_SHARE": "1",
        "PODTOOL_DIARIZELIKE_MODE": "slow",
    }
    params = config.resolve(DiarizeLikeParams, env=env).params
    assert params == DiarizeLikeParams(None, 1.0, False, ("a", "b"), "slow")
    assert isinstance(params.share, float)


@pytest.mark.parametrize(
    ("settings", "said", "hint"),
    [
        (["diarizelike.shar=1"], "no setting 'shar'", "Did you mean share?"),
        (["diarize.no_such=1"], "diarize has no setting", None),
        (["diarize_like.share=1"], "no stage", "Did you mean diarizelike?"),
        (["diarizelike.share=much"], "'much' is not a number", None),
        (["diarizelike.count=1.5"], "not a whole number", None),
        (["diarizelike.mode=medium"], "slow, fast", None),
        (["diarizelike.loud=maybe"], "not true or false", None),
        (["share=1"], "STAGE.FIELD=VALUE", None),
        (["diarizelike.share=2"], "share is at most 1", None),
    ],
)
def test_wrong_settings_say_what_and_where(
    settings: list[str], said: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        config.resolve(DiarizeLikeParams, settings=settings, env={})
    assert caught.value.exit_code == 4
    if hint:
        assert caught.value.hint == hint


def test_an_unknown_variable_of_the_stage_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no setting 'shares'"):
        config.resolve(DiarizeLikeParams, env={"PODTOOL_DIARIZELIKE_SHARES": "1"})


def test_presets_extend_each_other(tmp_path: Path) -> None:
    write(tmp_path, "base.toml", "[diarizelike]\nshare = 0.1\ncount = 1\n")
    top = write(tmp_path, "top.toml", 'extends = "base.toml"\n[diarizelike]\ncount = 2\n')
    loaded = config.load_preset(top)
    assert loaded.values["diarizelike"] == {"share": 0.1, "count": 2}
    assert loaded.origins["diarizelike"]["share"].endswith("base.toml")
    circle = write(tmp_path, "circle.toml", 'extends = "circle.toml"\n')
    with pytest.raises(ConfigError, match="circle"):
        config.load_preset(circle)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[diarizelike]\nshare = 'x'\n", "is not a number"),
        ("[diarizelike]\nshares = 1\n", "no setting 'shares'"),
        ("[diarising]\n", "no stage"),
        ("diarize = 1\n", "not a table"),
        ("[", "not valid TOML"),
    ],
)
def test_a_broken_preset_says_where(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        config.load_preset(write(tmp_path, "p.toml", text))


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load_preset("defalt")
    assert caught.value.hint == "Did you mean default?"


def test_explain_shows_value_and_origin(run: Callable[..., Result]) -> None:
    shown = run("presets", "explain", "--stage", "diarize", "--set", "diarize.hop_s=2", "--json")
    rows = {r["setting"]: r for r in map(json.loads, shown.stdout.splitlines())}
    assert (rows["hop_s"]["value"], rows["hop_s"]["origin"]) == (2.0, "--set")
    assert rows["min_turn_s"]["origin"] == "default" and rows["min_turn_s"]["help"]
    assert run("presets", "explain", "nonsense").exit_code == 4
