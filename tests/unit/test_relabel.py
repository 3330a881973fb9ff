"""Merging and renaming speakers of a diarization."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from podtool.artifacts import Embedding, Row, Segment, Speaker, Stem, Turn, Utterance
from podtool.errors import InputError
from podtool.relabel import labels, merge, rename
from podtool.rowio import of_kind

ROWS: list[Row] = [
    Turn("t0001", "ep", 0.0, 4.0, "S1", 0.8),
    Turn("t0002", "ep", 3.0, 6.0, "S3", 0.5),  # overlaps S1, who is the same person
    Turn("t0003", "ep", 5.0, 9.0, "S2", 0.9),  # overlaps S3
    Turn("t0004", "ep", 10.0, 11.0, "S3", 0.5),
    Segment("ep", 3.0, 4.0, "overlap"),
    Segment("ep", 5.0, 6.0, "overlap"),
    Segment("ep", 0.0, 12.0, "music"),
    Speaker("S1", "ep", 4.0, 1.0, score=0.8, embedding=Embedding("m", (1.0, 0.0))),
    Speaker("S2", "ep", 4.0, 1.0, score=0.9, embedding=Embedding("m", (-1.0, 0.0))),
    Speaker("S3", "ep", 4.0, 2.0, "Ann", score=0.5, embedding=Embedding("m", (0.0, 1.0))),
    Utterance("u0001", "ep", 3.2, 5.9, "hello", "S3", turn="t0002"),
    Stem("s1", "ep", "speaker:S3", "/a.wav", "0", 16000, 1, 16000, speaker="S3"),
]


def test_merge() -> None:
    rows = merge(ROWS, "S1", ["S3"])
    assert labels(rows) == ["S1", "S2"]
    assert [(t.id, t.start, t.end, t.speaker) for t in of_kind(rows, Turn)] == [
        ("t0001", 0.0, 6.0, "S1"),
        ("t0003", 5.0, 9.0, "S2"),
        ("t0004", 10.0, 11.0, "S1"),
    ]
    assert of_kind(rows, Turn)[0].score == pytest.approx((4 * 0.8 + 3 * 0.5) / 7)
    assert of_kind(rows, Segment) == [
        Segment("ep", 5.0, 6.0, "overlap"),
        Segment("ep", 0.0, 12.0, "music"),
    ]
    one, two = of_kind(rows, Speaker)
    assert (one.id, one.speech_s, one.overlap_s, one.name) == ("S1", 7.0, 1.0, "Ann")
    assert one.embedding is not None
    assert np.allclose(one.embedding.vector, [0.5**0.5, 0.5**0.5])
    assert two == of_kind(ROWS, Speaker)[1]
    said = of_kind(rows, Utterance)[0]
    assert (said.speaker, said.turn) == ("S1", "t0001")
    assert of_kind(rows, Stem)[0].name == "speaker:S1"


def test_merge_of_three_that_touch() -> None:
    rows: list[Row] = [
        Turn("a", "ep", 0.0, 1.0, "S1"),
        Turn("b", "ep", 1.0, 2.0, "S2"),
        Turn("c", "ep", 2.0, 3.0, "S3"),
    ]
    assert merge(rows, "S3", ["S1", "S2"]) == [Turn("a", "ep", 0.0, 3.0, "S3")]


def test_merge_says_where_utterances_overlap(caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [
        Utterance("u1", "ep", 0.0, 2.0, "a", "S1"),
        Utterance("u2", "ep", 1.0, 3.0, "b", "S2"),
    ]
    with caplog.at_level(logging.WARNING):
        merge(rows, "S1", ["S2"])
    assert "utterances u1 and u2 of S1 overlap now" in caplog.text


def test_rename() -> None:
    rows = rename(ROWS, "S3", "Ann Lee")
    assert labels(rows) == ["S1", "Ann Lee", "S2"]
    assert [s.id for s in of_kind(rows, Speaker)] == ["S1", "S2", "Ann Lee"]
    assert rename(rows, "Ann Lee", "S3") == ROWS


def test_refusals() -> None:
    with pytest.raises(InputError, match="no speaker 'S9'") as caught:
        merge(ROWS, "S1", ["S9"])
    assert caught.value.hint == "Speakers: S1, S3, S2."
    with pytest.raises(InputError, match="into itself"):
        merge(ROWS, "S1", ["S1"])
    with pytest.raises(InputError, match="a speaker 'S2' already"):
        rename(ROWS, "S1", "S2")
    with pytest.raises(InputError, match="empty"):
        rename(ROWS, "S1", " ")
