"""The demo episode: exact, seeded, two readers in turn; its truth fits what is heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from podtool import demo
from podtool.demo.music import bed
from podtool.errors import ModelError
from podtool.rowio import read_rows
from podtool.store import ModelStore


def test_the_bed_is_seeded_and_stereo() -> None:
    first, again, other = bed(3.0, 8000, 1), bed(3.0, 8000, 1), bed(3.0, 8000, 2)
    assert first.samples.shape == (2, 24000)
    assert np.array_equal(first.samples, again.samples)
    assert not np.array_equal(first.samples, other.samples)
    assert np.abs(first.samples).max() == pytest.approx(1.0)
    assert not np.allclose(first.samples[0], first.samples[1])


@pytest.fixture(scope="module")
def made() -> demo.Demo:
    store = ModelStore()
    try:
        return demo.build(store.folder("demo-recordings"), store.folder("demo-voice"))
    except ModelError as error:
        pytest.skip(error.message)


@pytest.mark.models
def test_parts_sum_to_the_episode_and_the_truth_fits(made: demo.Demo) -> None:
    first, second = made.readers
    total = first.samples + second.samples + made.music.samples
    assert np.array_equal(total, made.episode.samples)
    assert made.episode.channels == 2 and made.episode.sample_rate == 44100
    assert 60 < made.episode.duration < 90
    assert np.abs(made.episode.samples).max() < 1
    turns = made.turns
    assert [t.speaker for t in turns] == ["S1", "S2"] * 5 + ["S1"]
    overlaps = [a.end - b.start for a, b in zip(turns, turns[1:], strict=False) if b.start < a.end]
    assert overlaps == [pytest.approx(0.7, abs=1e-5)]
    for speaker, track in zip(("S1", "S2"), made.readers, strict=True):
        heard = np.abs(track.samples[0]) > 0
        said = np.zeros_like(heard)
        for turn in turns:
            if turn.speaker == speaker:
                said[round((turn.start - 0.1) * 44100) : round((turn.end + 0.1) * 44100)] = True
        assert not (heard & ~said).any(), "nobody is heard outside their turns"
    assert [u.turn for u in made.utterances] == [t.id for t in turns]
    speech = np.sqrt(np.mean(np.concatenate([first.samples, second.samples]) ** 2))
    assert speech > 3 * np.sqrt(np.mean(made.music.samples**2))


@pytest.mark.models
def test_what_is_written(made: demo.Demo, tmp_path: Path) -> None:
    paths = demo.write(made, tmp_path / "demo")
    again = demo.write(made, tmp_path / "again")
    for name in ("episode", "voice", "rttm"):
        assert paths[name].read_bytes() == again[name].read_bytes()
    rows = read_rows(paths["rows"])
    assert [r.kind for r in rows] == ["recording"] + ["turn"] * 11 + ["utterance"] * 11
    assert len(paths["rttm"].read_text().splitlines()) == 11
    assert made.voice.channels == 1 and made.voice.duration > 15
