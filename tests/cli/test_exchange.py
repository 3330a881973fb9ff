"""`podtool export` and `import`, as commands and as a pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from podtool.artifacts import Recording, Row, Speaker, Turn, Utterance
from podtool.rowio import encode, read_rows, write_rows

Run = Callable[..., Result]
ROWS: list[Row] = [
    Recording("tone", "/nowhere/tone.wav", "0" * 64, 44100, 2, 88200),
    Turn("t0001", "tone", 0.0, 1.5, "S1"),
    Turn("t0002", "tone", 1.0, 2.0, "S2"),
    Speaker("S1", "tone", 1.5, name="Ann Lee"),
    Speaker("S2", "tone", 1.0),
    Utterance("u0001", "tone", 0.0, 1.5, "hello there", "S1"),
    Utterance("u0002", "tone", 1.0, 2.0, "hi", "S2"),
]


@pytest.fixture()
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_rows(ROWS, path)
    return path


def test_export_to_stdout_names_people(run: Run, rows: Path) -> None:
    result = run("export", rows, "--format", "srt")
    assert result.exit_code == 0, result.stderr
    assert "[Ann Lee] hello there" in result.stdout
    assert "00:00:01,000 --> 00:00:02,000\n[S2] hi\n" in result.stdout
    plain = run("export", rows, "--format", "rttm", "--labels")
    assert plain.stdout.splitlines()[0] == "SPEAKER tone 1 0.000 1.500 <NA> <NA> S1 <NA> <NA>"


def test_export_from_stdin(run: Run) -> None:
    text = "\n".join(encode(r) for r in ROWS)
    result = run("export", "-", "-f", "txt", input=text)
    assert result.stdout == "Ann Lee: hello there\n\nS2: hi\n"


@pytest.mark.parametrize("name", ["x.srt", "x.vtt", "x.TextGrid", "x.seglst.json", "x.labels.txt"])
def test_out_and_in_again(run: Run, rows: Path, tmp_path: Path, tone: Path, name: str) -> None:
    target = tmp_path / name
    assert run("export", rows, "-o", target).exit_code == 0
    back = tmp_path / "back.jsonl"
    result = run("import", target, "--recording", tone, "-o", back)
    assert result.exit_code == 0, result.stderr
    found = read_rows(back)
    assert isinstance(found[0], Recording)
    assert [(u.speaker, u.text, u.start, u.end) for u in found if isinstance(u, Utterance)] == [
        ("Ann Lee", "hello there", 0.0, 1.5),
        ("S2", "hi", 1.0, 2.0),
    ]
    assert run("check", back).exit_code == 0


def test_import_from_stdin_and_by_format(run: Run) -> None:
    result = run("import", "-", "-f", "rttm", input="SPEAKER a 1 0 1 <NA> <NA> B <NA> <NA>\n")
    assert json.loads(result.stdout) == {
        "kind": "turn", "v": 1, "id": "t0001", "recording": "a", "start": 0.0, "end": 1.0,
        "speaker": "B",
    }  # fmt: skip
    assert run("import", "-", input="x").exit_code == 2


def test_outputs_are_not_overwritten(run: Run, rows: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.rttm"
    target.write_text("mine")
    assert run("export", rows, "-o", target).exit_code == 8
    assert target.read_text() == "mine"
    assert run("export", rows, "-o", target, "--force").exit_code == 0
    again = run("import", target, "-o", rows)
    assert (again.exit_code, again.stdout) == (8, "")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["export", "{rows}"], 2, "the format is not known"),
        (["export", "{rows}", "-f", "docx"], 2, "there is no format 'docx'"),
        (["export", "{rows}", "-f", "srt", "--what", "birds"], 2, "no 'birds' to write"),
        (["export", "{rows}", "-f", "ctm"], 3, "u0001 has none"),
        (["export", "{rows}", "-f", "srt", "--only", "other"], 3, "no recording 'other'"),
        (["export", "{missing}", "-f", "srt"], 3, "cannot read"),
        (["export", "{tone}", "-f", "srt"], 3, "not text"),
        (["import", "{bad}"], 3, "bad.rttm, line 2: the start is not a number: 'x'"),
        (["import", "{missing}", "-f", "srt"], 3, "cannot read"),
        (["import", "{tone}"], 3, "does not tell its format"),
        (["import", "{long}", "--recording", "{tone}"], 3, "goes on until 9.00 s"),
        (["import", "{two}", "--recording", "{tone}"], 3, "2 recordings and none is called tone"),
    ],
)
def test_errors_are_one_line_and_nothing_on_stdout(
    run: Run, rows: Path, tone: Path, tmp_path: Path, args: list[str], code: int, message: str
) -> None:
    line = "SPEAKER {} 1 {} {} <NA> <NA> S1 <NA> <NA>\n"
    (tmp_path / "bad.rttm").write_text(line.format("a", 0, 1) + line.format("a", "x", 1))
    (tmp_path / "long.rttm").write_text(line.format("a", 0, 9))
    (tmp_path / "two.rttm").write_text(line.format("a", 0, 1) + line.format("b", 0, 1))
    files = {
        "rows": rows, "tone": tone, "missing": tmp_path / "missing.jsonl",
        "bad": tmp_path / "bad.rttm", "long": tmp_path / "long.rttm", "two": tmp_path / "two.rttm",
    }  # fmt: skip
    result = run(*(a.format(**files) for a in args))
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_only_one_of_several_recordings(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    write_rows([Turn("t1", "a", 0.0, 1.0, "S1"), Turn("t2", "b", 0.0, 1.0, "S1")], path)
    assert run("export", path, "-f", "audacity").exit_code == 3
    result = run("export", path, "-f", "audacity", "--only", "b")
    assert result.stdout == "0.000000\t1.000000\tS1\n"
