"""The files of known people: names of any kind, damage, and renaming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from podtool import speakers
from podtool.errors import InputError
from podtool.speakers import Clip, Known


def person(name: str, at: int = 0) -> Known:
    vector = tuple(float(i == at) for i in range(4))
    return Known(name, (Clip("/a.wav", "0" * 64, 9.5),), {"campplus": vector})


def test_people_come_back_by_name(own_home: Path) -> None:
    assert speakers.known() == []
    names = ["Zoë", "ann", "Ann", "a/../b", "日本", "x" * 300, 'say "hi"']
    for at, name in enumerate(names):
        speakers.save(person(name, at % 4))
    assert [k.name for k in speakers.known()] == sorted(names)
    assert speakers.find("Ann") == person("Ann", 2)
    assert all(p.parent == own_home / "speakers" for p in speakers.folder().rglob("*"))
    assert not list(speakers.folder().glob("*.part"))
    vectors = speakers.embeddings()
    assert np.array_equal(vectors["Zoë"], np.array([1, 0, 0, 0], np.float32))
    assert speakers.embeddings("ge2e") == {}


def test_the_files_are_private(own_home: Path) -> None:
    assert speakers.save(person("Ann")).stat().st_mode & 0o077 == 0


def test_rename_and_remove(own_home: Path) -> None:
    speakers.save(person("Ann"))
    speakers.save(person("Bob"))
    with pytest.raises(InputError, match="somebody else"):
        speakers.rename("Ann", "Bob")
    assert speakers.rename("Ann", "  Ann   Lee ").name == "Ann Lee"
    assert [k.name for k in speakers.known()] == ["Ann Lee", "Bob"]
    speakers.remove("Bob")
    with pytest.raises(InputError, match="nobody called 'Bob'") as caught:
        speakers.remove("Bob")
    assert caught.value.hint is not None and "Ann Lee" in caught.value.hint
    with pytest.raises(InputError, match="needs a name"):
        speakers.rename("Ann Lee", " ")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"kind": "known", "v": 2, "name": "x", "clips": [], "embeddings": {}}',
     '{"kind": "known", "v": 1, "name": "x", "clips": [], "embeddings": {"m": ["a"]}}',
     '{"kind": "known", "v": 1, "name": "x", "clips": [], "embeddings": {"m": [NaN]}}',
     '{"kind": "known", "v": 1, "name": "x", "clips": [{}], "embeddings": {"m": [1]}}'],
)  # fmt: skip
def test_a_damaged_file_is_named(own_home: Path, content: str) -> None:
    speakers.save(person("Ann"))
    path = speakers.folder() / "bad.json"
    path.write_text(content)
    with pytest.raises(InputError, match="bad.json is not the file of a known person"):
        speakers.known()


def test_the_mean_is_weighted_by_seconds_and_of_unit_norm() -> None:
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    mean = np.array(speakers._mean([(3.0, a), (1.0, b)]))
    assert np.allclose(mean, np.array([3.0, 1.0]) / 10**0.5, atol=1e-6)


def test_the_file_is_plain_json(own_home: Path) -> None:
    record = json.loads(speakers.save(person("Zoë")).read_text(encoding="utf-8"))
    assert (record["kind"], record["v"], record["name"]) == ("known", 1, "Zoë")
