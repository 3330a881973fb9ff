"""Other programs read what is exported: meeteval, pyannote and ffmpeg on the golden files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from podtool import ffmpeg
from podtool.artifacts import Utterance
from podtool.formats import by_name, read_text

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "formats"


def test_meeteval_reads_rttm_seglst_and_ctm() -> None:
    io = pytest.importorskip("meeteval.io")
    rttm = io.RTTM.load(GOLDEN / "turns.rttm")
    assert [(line.speaker_id, float(line.begin_time), float(line.duration)) for line in rttm] == [
        ("S1", 0.5, 2.75),
        ("S2", 2.0, 2.000001),
        ("Ann%20Lee", 4.5, 1.5),
    ]
    seglst = io.SegLST(json.loads((GOLDEN / "utterances.seglst.json").read_text()))
    assert [(s["speaker"], s["words"]) for s in seglst] == [
        ("S1", 'She said "yes" & left.'),
        ("S2", "No <way>!"),
        ("Ann Lee", "[laughter] Well"),
    ]
    ctm = io.CTM.load(GOLDEN / "utterances.ctm")
    assert [line.word for line in ctm][:3] == ["[laughter]", "Well", "She"]
    assert {line.channel for line in ctm} == {"S1", "S2", "Ann%20Lee"}


def test_pyannote_reads_rttm() -> None:
    util = pytest.importorskip("pyannote.database.util")
    found = util.load_rttm(str(GOLDEN / "turns.rttm"))["ep"]
    assert [
        (round(s.start, 6), round(s.end, 6), name) for s, _, name in found.itertracks(True)
    ] == [
        (0.5, 3.25, "S1"),
        (2.0, 4.000001, "S2"),
        (4.5, 6.0, "Ann%20Lee"),
    ]


@pytest.mark.parametrize("name", ["utterances.srt", "utterances.vtt"])
def test_ffmpeg_reads_subtitles(name: str) -> None:
    command = [ffmpeg.executable(), "-v", "error", "-i", str(GOLDEN / name), "-f", "srt", "-"]
    text = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    found = [u for u in read_text(text, "x", by_name("srt"), "ep") if isinstance(u, Utterance)]
    assert [(u.start, u.end) for u in found] == [(0.5, 3.25), (2.0, 4.0), (5.0, 6.5)]
    assert found[0].text.endswith('She said "yes" & left.')
    if name.endswith(".vtt"):  # SRT has no way to say that a bracket is no tag
        assert "<way>" in found[1].text
