"""`podtool speakers`: known people (with the real embedding), merge and relabel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from podtool import speakers
from podtool.artifacts import Recording, Row, Turn
from podtool.audio import Audio, open_audio, write_audio
from podtool.rowio import encode, read_rows, write_rows
from podtool.speakers import Clip, Known

Run = Callable[..., Result]
ROWS: list[Row] = [
    Recording("ep", "/nowhere.wav", "0" * 64, 100, 1, 1000),
    Turn("t0001", "ep", 0.0, 4.0, "S1"),
    Turn("t0002", "ep", 3.0, 6.0, "S3"),
    Turn("t0003", "ep", 7.0, 8.0, "S2"),
]


def test_merge_and_relabel_in_a_pipe(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(ROWS, path)
    before = path.read_bytes()
    merged = run("speakers", "merge", path, "S1", "S3")
    assert merged.exit_code == 0, merged.stderr
    named = run("speakers", "relabel", "-", "S2", "Ann", input=merged.stdout)
    rows = [json.loads(line) for line in named.stdout.splitlines()]
    assert [(r["speaker"], r["start"], r["end"]) for r in rows if r["kind"] == "turn"] == [
        ("S1", 0.0, 6.0),
        ("Ann", 7.0, 8.0),
    ]
    assert path.read_bytes() == before


def test_in_place_only_where_it_is_said(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(ROWS, path)
    assert run("speakers", "merge", path, "S1", "S3", "-o", path).exit_code == 8
    assert read_rows(path) == ROWS
    assert run("speakers", "merge", path, "S1", "S3", "-o", path, "--force").exit_code == 0
    assert len(read_rows(path)) == 3


def test_a_label_that_is_not_there(run: Run) -> None:
    text = "\n".join(encode(r) for r in ROWS)
    for args in (["merge", "-", "S1", "S9"], ["relabel", "-", "S9", "Ann"]):
        result = run("speakers", *args, input=text)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "there is no speaker 'S9'" in result.stderr
        assert "Speakers: S1, S3, S2." in result.stderr
    taken = run("speakers", "relabel", "-", "S1", "S2", input=text)
    assert "speakers merge" in taken.stderr


def test_list_rename_rm(run: Run, own_home: Path) -> None:
    assert "nobody is enrolled" in run("speakers", "list").stderr
    speakers.save(Known("Ann", (Clip("/a.wav", "0" * 64, 9.5),), {"campplus": (1.0, 0.0)}))
    assert "Ann" in run("speakers", "list").stdout
    assert json.loads(run("speakers", "list", "--json").stdout) == {
        "kind": "known", "name": "Ann", "speech_s": 9.5, "clips": ["/a.wav"],
        "models": ["campplus"],
    }  # fmt: skip
    assert run("speakers", "rename", "Ann", "Ann Lee").exit_code == 0
    assert run("speakers", "rename", "Ann", "Bob").exit_code == 3
    missing = run("speakers", "rm", "Ann Lee", "Bob")
    assert missing.exit_code == 3
    assert [k.name for k in speakers.known()] == ["Ann Lee"]
    assert run("speakers", "rm", "Ann Lee").exit_code == 0
    assert speakers.known() == []


def test_a_name_that_is_taken_is_refused_before_any_work(run: Run, own_home: Path) -> None:
    speakers.save(Known("Ann", (), {"campplus": (1.0, 0.0)}))
    result = run("speakers", "enrol", "Ann", own_home / "missing.wav")
    assert result.exit_code == 8
    assert "--add" in result.stderr


@pytest.mark.models
def test_enrolled_people_get_their_names(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readers alternate; one of them is known from other sentences."""
    monkeypatch.setattr(speakers, "home", lambda: tmp_path / "home")  # weights stay where they are
    folders = sorted(p for p in (data / "read" / "librispeech-test-clean").iterdir())[:2]
    clips = {f.name: sorted(f.glob("*.flac"))[:6] for f in folders}
    (known, own), (_, others) = clips.items()
    half = len(own) // 2
    episode = tmp_path / "episode.wav"
    joined = [_read(path) for pair in zip(own[:half], others[:half], strict=False) for path in pair]
    write_audio(episode, Audio(np.concatenate(joined, axis=1), 16000))
    clip = tmp_path / "clip.wav"
    write_audio(clip, Audio(np.concatenate([_read(p) for p in own[half:]], axis=1), 16000))

    enrolled = run("speakers", "enrol", known, clip)
    assert enrolled.exit_code == 0, enrolled.stderr
    rows = [json.loads(line) for line in run("diarize", episode).stdout.splitlines()]
    people = [r for r in rows if r["kind"] == "speaker"]
    assert [p.get("name") for p in people] == [known, None]

    two = run("speakers", "enrol", "Two", episode)
    assert two.exit_code == 3
    assert "holds 2 people" in two.stderr
    short = tmp_path / "short.wav"
    write_audio(short, Audio(_read(clip)[:, :32000], 16000))
    result = run("speakers", "enrol", "Short", short)
    assert result.exit_code == 3
    assert "3 s are needed" in result.stderr
    assert [k.name for k in speakers.known()] == [known]


def _read(path: Path) -> np.ndarray:
    with open_audio(path) as audio:
        return audio.read().samples
