"""Clustering of unit embeddings: counts, bounds, ghosts, blocks, labels along chains."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.engines.diarization_cluster import (
    Count,
    SpeakerModel,
    agglomerate,
    cluster,
    label_units,
    pooled,
    unit,
)

Floats = NDArray[np.float32]
MODEL = SpeakerModel()


def voices(
    speakers: int, each: int, seconds: float = 3.0, seed: int = 0, dim: int = 192
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Units of several speakers with the noise that the model expects of so many seconds."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((speakers, dim)).astype(np.float32))
    truth = np.tile(np.arange(speakers), each)
    noise = rng.standard_normal((len(truth), dim)) * np.sqrt(1.4 / seconds / dim)
    vectors = unit((centres[truth] + noise).astype(np.float32))
    return vectors, np.full(len(truth), seconds, np.float32), truth


def found(vectors: Floats, seconds: Floats, **options: object) -> NDArray[np.int64]:
    settings: dict[str, object] = {"bound": 0.0, "smallest_s": 3.0, "block": 250}
    settings.update(options)
    count = settings.pop("count", Count())
    return cluster(vectors, seconds, MODEL, count, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("speakers", [1, 2, 3, 5, 8])
def test_the_number_of_speakers_is_found(speakers: int) -> None:
    vectors, seconds, truth = voices(speakers, 12)
    labels = found(vectors, seconds)
    assert labels.tolist() == truth.tolist()  # truth, too, is numbered by first appearance


@pytest.mark.parametrize("block", [10, 40, 1000])
def test_blocks_do_not_change_the_result(block: int) -> None:
    vectors, seconds, truth = voices(4, 25, seed=1)
    assert found(vectors, seconds, block=block).tolist() == truth.tolist()


@pytest.mark.parametrize("wanted", [1, 2, 4])
def test_a_number_that_is_asked_for_is_kept(wanted: int) -> None:
    vectors, seconds, _ = voices(3, 10, seed=2)
    labels = found(vectors, seconds, count=Count(wanted, wanted))
    assert len(set(labels.tolist())) == wanted


def test_most_and_least_are_bounds_only() -> None:
    vectors, seconds, truth = voices(3, 10, seed=2)
    assert found(vectors, seconds, count=Count(2, 5)).tolist() == truth.tolist()
    assert len(set(found(vectors, seconds, count=Count(1, 2)).tolist())) == 2


def test_no_more_speakers_than_units() -> None:
    vectors, seconds, _ = voices(1, 2, seed=3)
    assert len(set(found(vectors, seconds, count=Count(9, 9)).tolist())) == 2
    assert len(found(vectors[:0], seconds[:0])) == 0


def test_a_single_odd_unit_is_no_speaker() -> None:
    vectors, seconds, _ = voices(2, 10, seed=4)
    stranger, _, _ = voices(1, 1, seed=99)
    labels = found(
        np.concatenate([vectors, stranger]), np.concatenate([seconds, [np.float32(2.0)]])
    )
    assert len(set(labels.tolist())) == 2


def test_long_stretches_must_agree_more_than_short_ones() -> None:
    cosine = np.array([0.35], np.float32)
    short = MODEL.score(cosine, np.array([1.0], np.float32), np.array([1.0], np.float32))
    long = MODEL.score(cosine, np.array([60.0], np.float32), np.array([60.0], np.float32))
    assert short[0] > 0 > long[0]


def test_agglomerate_stops_at_its_bound() -> None:
    vectors, seconds, _ = voices(3, 4, seed=5)
    none = agglomerate(vectors, seconds, MODEL, 99.0, 1, 100)
    assert len(set(none.tolist())) == len(vectors)


def test_a_short_unit_takes_the_label_of_its_chain_and_a_long_one_its_own() -> None:
    vectors, seconds, truth = voices(2, 6, seed=6)
    sums, totals = pooled(truth, vectors, seconds)
    doubtful = unit(vectors[0:1] * 0.2 + unit(sums)[1:2] * 0.25)
    chain = np.concatenate([vectors[0:1], doubtful, vectors[2:3], vectors[1:2]])
    length = np.array([3.0, 0.3, 3.0, 3.0], np.float32)
    labels = label_units(
        unit(sums),
        totals,
        chain,
        length,
        np.ones(4, bool),
        np.zeros(4, np.int64),
        [],
        MODEL,
        60.0,
        4.0,
    )
    assert labels.tolist() == [0, 0, 0, 1]


def test_two_who_talk_at_once_are_two_people() -> None:
    vectors, seconds, truth = voices(2, 6, seed=7)
    sums, totals = pooled(truth, vectors, seconds)
    centres = unit(sums)
    mixture = unit(centres[0:1] * 0.8 + centres[1:2] * 0.5)  # the first voice is the louder one
    units = np.concatenate([vectors[0:1], mixture])
    labels = label_units(
        centres,
        totals,
        units,
        np.array([3.0, 2.0], np.float32),
        np.array([True, False]),
        np.array([0, 1]),
        [(1, 0, 1.0), (0, 1, 0.4)],
        MODEL,
        60.0,
        4.0,
    )
    assert labels.tolist() == [0, 1]
