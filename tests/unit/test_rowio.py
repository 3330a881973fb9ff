"""Rows on disk: what is refused, where it says so, and what becomes of paths."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from podtool.artifacts import Metric, Opaque, Recording, Row, Stem, Turn, Utterance, Word
from podtool.errors import InputError, OutputError
from podtool.rowio import decode, encode, of_kind, read_rows, write_rows

TURN: dict[str, Any] = {
    "kind": "turn", "v": 1, "id": "t1", "recording": "r", "start": 1.0, "end": 2.0, "speaker": "S1",
}  # fmt: skip
RECORDING: dict[str, Any] = {
    "kind": "recording", "v": 1, "id": "r", "path": "x.wav", "sha256": "0", "sample_rate": 8000,
    "channels": 1, "frames": 8000,
}  # fmt: skip


def refused(record: dict[str, Any] | str, folder: Path | None = None) -> str:
    line = record if isinstance(record, str) else json.dumps(record)
    with pytest.raises(InputError) as caught:
        decode(line, "file, line 7", folder)
    assert caught.value.message.startswith("file, line 7: ")
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v": 2}, "turn row has version 2; this podtool knows 1"),
        ({"v": None}, "version None"),
        ({"v": True}, "version True"),
        ({"v": 1.0}, "version 1.0"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"start": 3.0}, "turn ends (2.0 s) before it starts (3.0 s)"),
        ({"start": -0.5}, "turn starts before the recording"),
        ({"start": "1"}, "turn.start: expected a number, got '1'"),
        ({"start": True}, "turn.start: expected a number, got True"),
        ({"end": 10**400}, "turn.end: the number is too large"),
        ({"score": None}, "turn.score: leave the field out instead of null"),
        ({"id": 7}, "turn.id: expected str, got 7"),
        ({"extra": []}, "turn.extra: expected an object"),
    ],
)
def test_what_a_turn_cannot_be(changes: dict[str, Any], message: str) -> None:
    assert message in refused(TURN | changes)


def test_a_newer_version_says_how_to_update_an_older_one_does_not() -> None:
    with pytest.raises(InputError) as caught:
        decode(json.dumps(TURN | {"v": 2}))
    assert caught.value.hint == "Update podtool: pip install -U podtool"
    with pytest.raises(InputError) as caught:
        decode(json.dumps(TURN | {"v": 0}))
    assert caught.value.hint is None


@pytest.mark.parametrize(
    "line",
    [
        "", "x", "[]", '"turn"', "{}", '{"kind": 1}', '{"kind": "turn"', '{"kind": NaN}',
        '{"kind": "other", "x": Infinity}', '{"kind": "other", "x": 1e999}', "[" * 100_000,
        '{"kind":' * 100_000, '{"kind": "other", "n": ' + "1" * 5000 + "}", "\x00",
    ],
)  # fmt: skip
def test_what_is_not_a_row(line: str) -> None:
    refused(line)


def test_a_field_that_is_there_twice() -> None:
    line = json.dumps(TURN)[:-1] + ', "end": 9.0}'
    assert "the field 'end' is there twice" in refused(line)


def test_half_a_character_is_refused_on_reading_not_on_writing() -> None:
    assert "lone surrogate" in refused(json.dumps(TURN | {"speaker": "\ud800"}))
    assert isinstance(decode(json.dumps(TURN | {"speaker": "\U0001f600"})), Turn)


@pytest.mark.parametrize("field", sorted(set(TURN) - {"kind", "v"}))
def test_a_missing_field_is_named(field: str) -> None:
    assert f"'{field}' is missing" in refused({k: v for k, v in TURN.items() if k != field})


def test_nested_rows_are_as_strict() -> None:
    said = {"kind": "utterance", "v": 1, "id": "u", "recording": "r", "start": 0, "end": 1,
            "text": "a", "words": [{"text": "a", "start": 0, "end": 1}]}  # fmt: skip
    row = decode(json.dumps(said))
    assert isinstance(row, Utterance)
    assert row.words == (Word("a", 0.0, 1.0),)
    assert "words[0]: unknown field 'x'" in refused(
        said | {"words": [{"text": "a", "start": 0, "end": 1, "x": 1}]}
    )
    assert "words[0]: the field 'end' is missing" in refused(
        said | {"words": [{"text": "a", "start": 0}]}
    )
    assert "words: expected a list" in refused(said | {"words": {}})
    assert "words[0]: expected an object" in refused(said | {"words": ["a"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": 0}, "recording.sample_rate is 0, below 1"),
        ({"channels": 0}, "recording.channels is 0, below 1"),
        ({"frames": -1}, "recording.frames is -1, below 0"),
        ({"frames": 1.5}, "expected int, got 1.5"),
        ({"path": ""}, "is not a path"),
        ({"path": "a\0b"}, "is not a path"),
        ({"path": "../x.wav"}, "points outside the folder"),
        ({"path": "a/../../x.wav"}, "points outside the folder"),
    ],
)
def test_what_a_recording_cannot_be(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refused(RECORDING | changes, tmp_path)


def test_a_link_out_of_the_folder_is_outside(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    assert "outside" in refused(RECORDING | {"path": "link/x.wav"}, inside)


def test_paths_move_with_their_folder(tmp_path: Path) -> None:
    old = tmp_path / 'an "old" folder, ünd more'
    file = old / "stems" / "a b.wav"
    elsewhere = tmp_path / "elsewhere.wav"
    rows: list[Row] = [
        Recording("r", str(file), "0", 8000, 1, 5),
        Stem("s", "r", "speech", str(elsewhere), "0", 8000, 1, 5),
    ]
    write_rows(rows, old / "rows.jsonl")
    written = [json.loads(s)["path"] for s in (old / "rows.jsonl").read_text().splitlines()]
    assert written == ["stems/a b.wav", str(elsewhere)]
    assert read_rows(old / "rows.jsonl") == rows
    new = tmp_path / "new"
    old.rename(new)
    moved = of_kind(read_rows(new / "rows.jsonl"), Recording)[0]
    assert moved.path == str(new / "stems" / "a b.wav")


def test_a_folder_whose_name_begins_alike_is_not_beneath(tmp_path: Path) -> None:
    row = Recording("r", str(tmp_path / "takes-old" / "x.wav"), "0", 8000, 1, 5)
    assert json.loads(encode(row, tmp_path / "takes"))["path"] == row.path


def test_on_stdout_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    row = Recording("r", "x.wav", "0", 8000, 1, 5)
    assert json.loads(encode(row))["path"] == str(tmp_path / "x.wav")


def test_unknown_kinds_pass_through_untouched() -> None:
    line = '{"kind": "mine", "v": 99, "x": [1, 2.123456789, null, {"ü": "\u65e5"}], "path": "../a"}'
    row = decode(line)
    assert isinstance(row, Opaque)
    assert encode(row) == line


def test_extra_is_not_rounded_everything_else_is() -> None:
    row = Metric("m", 0.123456789, "s", extra={"tiny": 1e-9, "x": [0.123456789, None]})
    record = json.loads(encode(row))
    assert record["value"] == 0.123457
    assert record["extra"] == {"tiny": 1e-9, "x": [0.123456789, None]}


def test_minus_zero_is_zero() -> None:
    assert '"value": 0.0' in encode(Metric("m", -1e-12, "s"))


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(TURN) + "\n\n" + json.dumps(TURN | {"x": 1}) + "\n")
    with pytest.raises(InputError, match=r"rows\.jsonl, line 3: turn: unknown field 'x'"):
        read_rows(path)


def test_editors_may_leave_a_mark_and_their_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    separator = json.dumps(TURN | {"speaker": "S\u2028"}, ensure_ascii=False)  # no line end in JSON
    path.write_bytes(b"\xef\xbb\xbf" + f"{json.dumps(TURN)}\r\n{separator}\r\n\r\n".encode())
    assert [t.speaker for t in of_kind(read_rows(path), Turn)] == ["S1", "S\u2028"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"kind": "\xe9"}')
    for name, message in {
        "latin.jsonl": "is not text", "missing.jsonl": "cannot read", ".": "cannot read",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_rows(tmp_path / name)


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = Turn("t1", "r", 1.0, 2.0, "S1")
    write_rows([row], path)
    before = path.read_bytes()

    def failing() -> Any:
        yield row
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_rows(failing(), path)
    with pytest.raises(ValueError):
        write_rows([Metric("m", float("nan"), "s")], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["rows.jsonl"]
    with pytest.raises(OutputError, match="exists"):
        write_rows([row], path, force=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_rows([row], tmp_path / "file" / "rows.jsonl")
