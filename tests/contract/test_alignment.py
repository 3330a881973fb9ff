"""Forced alignment by PocketSphinx on real speech: every word has times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from podtool.artifacts import Utterance
from podtool.audio import Audio, open_audio
from podtool.engines.alignment_pocketsphinx import PocketSphinxAligner
from podtool.engines.protocols import EngineContext
from podtool.errors import ModelError
from podtool.resample import resample
from podtool.stages.align import align

pytest.importorskip("pocketsphinx")


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


@pytest.fixture(scope="module")
def aligner() -> PocketSphinxAligner:
    return PocketSphinxAligner.load(EngineContext(NoStore()))


@pytest.fixture(scope="module")
def reading(data: Path) -> tuple[Audio, list[str]]:
    rows = [json.loads(line) for line in (data / "MANIFEST.jsonl").open()]
    row = next(r for r in rows if r["kind"] == "read" and r["path"].endswith("jfk.flac"))
    with open_audio(data / row["path"]) as file:
        return resample(file.read(), 16000), str(row["transcript"]).split()


def test_words_come_in_order_with_times_and_scores(
    aligner: PocketSphinxAligner, reading: tuple[Audio, list[str]]
) -> None:
    audio, words = reading
    found = aligner.align(audio, words)
    assert [w.text for w in found] == words
    assert not any(w.interpolated for w in found)
    assert all(0 <= w.start < w.end <= audio.duration for w in found)
    assert all(a.end <= b.start + 1e-9 for a, b in zip(found, found[1:], strict=False))
    assert np.median([w.score or 0 for w in found]) > 0.7
    assert aligner.align(audio, words) == found


def test_a_word_that_was_not_said_scores_low(
    aligner: PocketSphinxAligner, reading: tuple[Audio, list[str]]
) -> None:
    audio, words = reading
    wrong = [*words[:6], "bubble", *words[7:]]
    found = aligner.align(audio, wrong)
    assert (found[6].score or 0) < 0.5 < (aligner.align(audio, words)[6].score or 0)


def test_unknown_words_digits_and_dashes_have_times(
    aligner: PocketSphinxAligner, reading: tuple[Audio, list[str]]
) -> None:
    audio, words = reading
    odd = [words[0], "zyxelbrandt", "\u2014", "$5", *words[4:]]
    found = aligner.align(audio, odd)
    assert [w.text for w in found] == odd
    assert found[1].interpolated is None and found[3].interpolated is None
    assert found[2].interpolated and found[2].score is None
    assert found[1].end <= found[2].start <= found[2].end <= found[3].start


@pytest.mark.parametrize("frames", [1, 160, 16000])
def test_silence_and_scraps_give_interpolated_times(
    aligner: PocketSphinxAligner, frames: int
) -> None:
    audio = Audio(np.zeros((1, frames), np.float32), 16000)
    found = aligner.align(audio, ["one", "two", "three"])
    assert len(found) == 3 and all(w.interpolated and w.score is None for w in found)
    assert found[0].start == 0 and found[-1].end == pytest.approx(audio.duration)
    assert aligner.align(audio, []) == []


def test_what_came_before_changes_nothing(
    aligner: PocketSphinxAligner, reading: tuple[Audio, list[str]]
) -> None:
    audio, words = reading
    before = aligner.align(audio, words)
    aligner.align(Audio(audio.samples[:, :32000] * 0.1, 16000), ["and", "so", "quixotry"])
    assert aligner.align(audio, words) == before


def test_edited_text_gets_new_times_within_the_utterance(
    aligner: PocketSphinxAligner, reading: tuple[Audio, list[str]]
) -> None:
    audio, words = reading
    edited = Utterance("u1", "r", 0.2, 10.5, " ".join([*words, "indeed"]), "S1", score=0.4)
    found = align(audio, [edited], aligner)[0]
    assert found.text == edited.text and found.start == 0.2
    assert [w.text for w in found.words or ()] == edited.text.split()
    assert all(0.2 <= w.start <= w.end <= 10.5 for w in found.words or ())
