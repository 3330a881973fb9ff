"""`podtool check`: one broken thing at a time in a file that is otherwise right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from podtool.artifacts import (
    Consent,
    Embedding,
    Placement,
    Recording,
    Row,
    Segment,
    Speaker,
    Take,
    Turn,
    Utterance,
    Voice,
    Word,
)
from podtool.audio import Audio, sha256_of, write_audio
from podtool.rowio import encode, write_rows
from podtool.rundir import RunDir

Run = Callable[..., Result]


@pytest.fixture()
def good(tone: Path) -> list[Row]:
    """Rows of every kind about two seconds of tone; right in every respect."""
    digest = sha256_of(tone)
    file: dict[str, Any] = {"path": str(tone), "sha256": digest, "sample_rate": 44100}
    return [
        Recording("tone", str(tone), digest, 44100, 2, 88200),
        Turn("t0001", "tone", 0.0, 1.5, "S1", 0.9),
        Turn("t0002", "tone", 1.0, 2.0, "S2"),
        Segment("tone", 1.0, 1.5, "overlap"),
        Speaker("S1", "tone", 1.5, embedding=Embedding("m", (0.6, 0.8))),
        Speaker("S2", "tone", 1.0),
        Utterance(
            "u0001", "tone", 0.0, 1.5, "hello you", "S1", turn="t0001",
            words=(Word("hello", 0.0, 0.5), Word("you", 0.5, 1.5)),
        ),
        Utterance("u0002", "tone", 1.0, 2.0, "hi", "S2", turn="t0002"),
        Voice("v1", "Ann", "world", consent=Consent("Ann agreed"), **file),
        Take(
            "k0001", "tone", "S1", "v1", "convert", channels=2, frames=88200, start=0.0, end=2.0,
            turn="t0001", utterance="u0001", **file,
        ),
        Placement("tone", 0.0, 1.5, take="k0001"),
    ]  # fmt: skip


def broken(rows: list[Row], at: int, **changes: Any) -> list[Row]:
    """The rows with one of them changed."""
    return [*rows[:at], replace(rows[at], **changes), *rows[at + 1 :]]


def test_a_file_that_is_right(run: Run, good: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(good, path)
    result = run("check", path, "--json", "--strict")
    assert result.exit_code == 0, result.stdout + result.stderr
    assert json.loads(result.stdout) == {
        "kind": "checked",
        "path": str(path),
        "holds": "1 recording, 2 turn, 1 segment, 2 speaker, 2 utterance, 1 voice, 1 take, "
        "1 placement",
        "errors": 0,
        "warnings": 0,
    }
    assert "ok" in run("check", path).stdout
    piped = "\n".join(encode(row) for row in good)
    assert run("check", "-", input=piped).exit_code == 0


@pytest.mark.parametrize(
    ("at", "changes", "line", "message"),
    [
        (2, {"id": "t0001"}, 3, "turn 't0001' is there already in line 2"),
        (5, {"id": "S1"}, 6, "speaker 'S1' is there already"),
        (1, {"recording": "other"}, 2, "refers to recording 'other', which is not here"),
        (1, {"speaker": "S9"}, 2, "refers to speaker 'S9'"),
        (6, {"turn": "t0009"}, 7, "refers to turn 't0009'"),
        (9, {"voice": "v2"}, 10, "refers to voice 'v2'"),
        (9, {"utterance": "u0009"}, 10, "refers to utterance 'u0009'"),
        (10, {"take": "k0009"}, 11, "refers to take 'k0009'"),
        (2, {"end": 2.1}, 3, "ends at 2.100 s, after the recording (2.000 s)"),
        (3, {"end": 20.0}, 4, "after the recording"),
        (7, {"speaker": "S1", "turn": None}, 8, "u0002 overlaps u0001 of the same speaker S1"),
        (6, {"start": 0.25}, 7, "the word 'hello' (0.000 to 0.500 s) lies outside of u0001"),
        (6, {"words": (Word("a", 0.5, 0.6), Word("b", 0.2, 0.3))}, 7, "'b' of u0001 starts before"),
        (6, {"words": (Word("a", 0.5, 0.4),)}, 7, "ends before it starts"),
        (1, {"score": 1.5}, 2, "the score 1.5 is not between 0 and 1"),
        (4, {"embedding": Embedding("m", (1.0, 1.0))}, 5, "the norm 1.414 instead of 1"),
        (8, {"consent": Consent(" ")}, 9, "empty statement of consent"),
        (0, {"sha256": "0" * 64}, 1, "has changed since the row was written"),
        (0, {"channels": 1}, 1, "has channels 2, the row says 1"),
        (9, {"frames": 88199}, 10, "has frames 88200, the row says 88199"),
        (9, {"end": 1.0}, 10, "take k0001 is 2.000 s long, its slot 1.000 s"),
        (9, {"keep": ((1.5, 2.5),)}, 10, "take k0001 keeps 1.500 to 2.500 s"),
        (9, {"path": "/nowhere.wav"}, 10, "the file of take 'k0001' is missing: /nowhere.wav"),
    ],
)
def test_each_breach_is_found_in_its_line(
    run: Run, good: list[Row], tmp_path: Path, at: int, changes: dict[str, Any], line: int,
    message: str,
) -> None:  # fmt: skip
    path = tmp_path / "rows.jsonl"
    write_rows(broken(good, at, **changes), path)
    result = run("check", path, "--json")
    assert result.exit_code == 10
    found = [json.loads(text) for text in result.stdout.splitlines()][:-1]
    assert any(f["line"] == line and message in f["message"] for f in found), found
    assert "check-failed" in result.stderr


def test_every_line_that_cannot_be_read_is_listed(
    run: Run, good: list[Row], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(good, path)
    lines = path.read_bytes().splitlines()
    lines[1] = b'{"kind": "turn", "v": 9}'
    lines[3] = b"not json"
    lines[5] = b'{"kind": "speaker", "v": 1, "id": "\xff"}'
    lines.append(b'{"kind": "from the future", "v": 3, "anything": true}')
    path.write_bytes(b"\n".join(lines))
    result = run("check", path, "--json")
    assert result.exit_code == 3
    found = [json.loads(text) for text in result.stdout.splitlines()]
    assert [f["line"] for f in found if f.get("exit_code") == 3] == [2, 4, 6]
    assert "line 2: turn row has version 9; this podtool knows 1" in result.stderr
    assert "more)" in result.stderr


def test_hashing_can_be_left_out(run: Run, good: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(broken(good, 0, sha256="0" * 64), path)
    assert run("check", path, "--no-files").exit_code == 0


def test_two_turns_of_one_speaker_at_once_are_only_odd(
    run: Run, good: list[Row], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows([*good, Turn("t0003", "tone", 0.5, 0.75, "S1")], path)
    assert run("check", path).exit_code == 0
    assert run("check", path, "--strict").exit_code == 10


def test_audio(run: Run, tmp_path: Path, tone: Path) -> None:
    assert run("check", tone).exit_code == 0
    silent = tmp_path / "silent.wav"
    write_audio(silent, Audio(np.zeros((8, 16000), np.float32), 8000))
    result = run("check", silent, "--json")
    assert result.exit_code == 0
    messages = [json.loads(text).get("message", "") for text in result.stdout.splitlines()]
    assert "the recording is silent" in messages
    assert "8 channels are mixed down for analysis" in messages
    assert run("check", silent, "--strict").exit_code == 10
    samples = np.zeros((1, 16000), np.float32)
    samples[0, 100] = np.nan
    write_audio(tmp_path / "nan.wav", Audio(samples, 16000), "float")
    both = run("check", tmp_path / "nan.wav", tmp_path / "missing.wav", tone)
    assert both.exit_code == 3
    assert "NaN" in both.stderr and "1 more" in both.stderr


def test_exchange_formats(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.rttm"
    path.write_text("SPEAKER a 1 0 1 <NA> <NA> B <NA> <NA>\n")
    assert run("check", path, "--strict").exit_code == 0
    path.write_text("SPEAKER a 1 0 1\n")
    result = run("check", path)
    assert result.exit_code == 3
    assert "line 1: a SPEAKER line has 10 fields" in result.stderr


def test_a_folder_that_is_no_run(run: Run, tmp_path: Path) -> None:
    result = run("check", tmp_path)
    assert result.exit_code == 3
    assert "without finished stages" in result.stderr


def test_a_run_directory(run: Run, tmp_path: Path, good: list[Row]) -> None:
    folder = tmp_path / "ep.podtool"

    def build(part: Path) -> None:
        write_rows(good, part / "turns.jsonl")
        write_audio(part / "speech.wav", Audio(np.full((1, 100), 0.1, np.float32), 8000), "float")

    with RunDir(folder, ("diarize",)) as process:
        process.run("diarize", {"stage": "diarize", "params": {}}, build)
    assert run("check", folder, "--strict").exit_code == 0

    turns = folder / "diarize" / "turns.jsonl"
    edited = broken(good, 1, end=1.4)
    write_rows(edited, turns)
    result = run("check", folder, "--json", "--strict")
    assert result.exit_code == 0
    assert "edited by hand" in result.stdout

    turns.write_text(turns.read_text() + "oops\n")
    result = run("check", folder)
    assert result.exit_code == 3
    assert f"turns.jsonl, line {len(good) + 1}: not a JSON row" in result.stderr.replace("\n", "")
    write_rows(good, turns)

    write_audio(folder / "diarize" / "speech.wav", Audio(np.zeros((1, 100), np.float32), 8000))
    result = run("check", folder)
    assert result.exit_code == 10
    assert "speech.wav has changed" in result.stderr
    (folder / "diarize" / "speech.wav").unlink()
    assert "speech.wav is missing" in run("check", folder).stderr
    (folder / "old.part").mkdir()
    assert "left over" in run("check", folder).stdout.replace("\n", "")
    (folder / "diarize" / "done.json").write_text("{}")
    assert run("check", folder).exit_code == 3


def test_rows_of_a_live_session_are_looked_at_as_they_settle(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    """Somebody not known yet, speakers told of twice, a correction: all of it is in order."""
    rows = [
        {"kind": "provenance", "v": 1, "stage": "live", "podtool": "0"},
        {"kind": "speaker", "v": 1, "id": "S1", "recording": "live", "speech_s": 1.0},
        {"kind": "utterance", "v": 1, "id": "u1", "recording": "live", "start": 0.0, "end": 1.0,
         "text": "Well.", "speaker": "S?"},
        {"kind": "utterance", "v": 1, "id": "u2", "recording": "live", "start": 2.0, "end": 3.0,
         "text": "Yes.", "speaker": "S?"},
        {"kind": "correction", "v": 1, "recording": "live", "from": "S?", "to": "S1", "since": 0.0,
         "until": 0.5},
        {"kind": "speaker", "v": 1, "id": "S1", "recording": "live", "speech_s": 2.0},
    ]  # fmt: skip
    path = tmp_path / "live.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("check", path).exit_code == 0
    text = run("export", path, "-f", "txt").stdout
    assert text.split("\n\n") == ["S1: Well.", "S?: Yes.\n"]
    broken = [{**row, "id": "u1"} if row["kind"] == "utterance" else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in broken))
    done = run("check", path)
    assert done.exit_code == 10 and "'u1' is there already in line 3" in done.stderr
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[1:4] + rows[5:]))
    assert run("check", path).exit_code == 10  # not of live: told twice is once too often
