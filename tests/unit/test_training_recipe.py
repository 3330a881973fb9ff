"""Recipes: what is shipped, what is refused, and what a checkpoint depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from podtool.errors import ConfigError
from podtool.training.recipe import read_recipe, recipe_names


def test_the_shipped_recipes() -> None:
    separators = ["background", "talkers", "talkers-pairs", "talkers-streaming"]
    assert recipe_names() == sorted([*separators, "converter"])
    found = {name: read_recipe(name) for name in separators}
    for name, recipe in found.items():
        assert recipe.name == name and recipe.about
        frame_ms = 1000 * recipe.network.window / recipe.network.sample_rate
        assert frame_ms <= (20 if recipe.task == "background" else 40)
        assert "GPL" in recipe.data.exclude_licences and len(recipe.data.validation_speakers) == 8
    assert found["background"].network.causal and found["talkers-streaming"].network.causal
    assert not found["talkers"].network.causal
    offline, streaming = found["talkers"], found["talkers-streaming"]
    assert replace(offline.network, causal=True) == streaming.network
    assert len({recipe.data for recipe in found.values()}) == 1  # the same people are kept out


def test_the_digest_is_of_what_decides_and_not_of_the_length(
    tiny_training: tuple[Path, Path],
) -> None:
    recipe = read_recipe(tiny_training[0])
    same = replace(recipe, about="x", training=replace(recipe.training, steps=9, patience=1))
    assert same.digest == recipe.digest
    others = (
        replace(recipe, seed=4),
        replace(recipe, training=replace(recipe.training, lr=0.1)),
        replace(recipe, mixing=replace(recipe.mixing, seconds=0.6)),
        replace(recipe, data=replace(recipe.data, exclude_speakers=("v0",))),
    )
    assert len({recipe.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 3", "sead = 3", "Did you mean seed"),
        ('task = "talkers"', 'task = "music"', "background, talkers"),
        ("channels = 8", 'channels = "8"', "a whole number"),
        ("hop = 32", "hop = 31", "half of the window"),
        ("bands = [5, 8, 20]", "bands = [5, 8]", "13 bins of the 33"),
        ("window = 64", "window = 64\nsample_rate = 8000", "16000"),
        ('task = "talkers"', 'task = "background"', "gives 2 talkers, the task 1"),
        ("batch = 2", "batch = 0", "batch is at least 1"),
        ("validate_every = 2", "validate_every = 0", "validate_every is at least 1"),
        ("[training]", "[loss]\nwindow = 1\n[training]", "at least 16"),
        ("[mixing]", "[mixing", "not valid TOML"),
        ("[mixing]", "[mixture]", "no setting 'mixture'"),
        ("[data]", "data = 3\n[x]", ""),
    ],
)
def test_what_is_wrong_is_named(
    old: str, new: str, said: str, tiny_training: tuple[Path, Path]
) -> None:
    path, _ = tiny_training
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_files_and_names_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recipe 'speech'"):
        read_recipe("speech")
    with pytest.raises(ConfigError, match="No such file"):
        read_recipe(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        read_recipe(tmp_path)
    (tmp_path / "latin.toml").write_bytes('name = "\xe9"'.encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot read"):
        read_recipe(tmp_path / "latin.toml")
