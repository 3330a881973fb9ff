"""Every measure against tables that were counted by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from podtool import metrics
from podtool.artifacts import Turn, Utterance, Word
from podtool.audio import Audio
from podtool.errors import InputError


def turns(*spans: tuple[float, float, str]) -> list[Turn]:
    return [Turn(f"t{i:04d}", "ep", a, b, s) for i, (a, b, s) in enumerate(spans, 1)]


# ---------------------------------------------------------------- diarization


def test_der_by_hand() -> None:
    reference = turns((0, 10, "A"), (10, 20, "B"))
    # 2 s of A missed at the start, B starts 1 s late with A's label going on, 3 s too long.
    found = turns((2, 11, "x"), (11, 23, "y"))
    score = metrics.diarization(reference, found, duration_s=30.0, collar_s=0.0)
    assert (score.missed_s, score.confusion_s, score.false_alarm_s) == (2.0, 1.0, 3.0)
    assert score.total_s == 20.0
    assert score.der == pytest.approx(6 / 20)
    # Jaccard: A against x, 8 of 11 s shared; B against y, 9 of 13 s shared.
    assert score.jer == pytest.approx((3 / 11 + 4 / 13) / 2)
    assert (score.reference_speakers, score.found_speakers) == (2, 2)


def test_overlap_is_scored_once_per_speaker() -> None:
    reference = turns((0, 10, "A"), (4, 6, "B"))
    found = turns((0, 10, "x"))
    score = metrics.diarization(reference, found, collar_s=0.0)
    assert score.total_s == 12.0
    assert score.der == pytest.approx(2 / 12)
    without = metrics.diarization(reference, found, collar_s=0.0, skip_overlap=True)
    assert without.der == 0.0


def test_the_collar_is_seconds_on_either_side() -> None:
    reference = turns((10, 20, "A"))
    found = turns((10.2, 20.2, "A"))
    assert metrics.diarization(reference, found, collar_s=0.25).der == 0.0
    score = metrics.diarization(reference, found, collar_s=0.1)
    assert score.missed_s == pytest.approx(0.1)
    assert score.false_alarm_s == pytest.approx(0.1)
    assert score.total_s == pytest.approx(9.8)


def test_turns_of_one_speaker_count_once_where_they_overlap() -> None:
    reference = turns((0, 10, "A"))
    found = turns((0, 6, "x"), (4, 10, "x"))
    assert metrics.diarization(reference, found, collar_s=0.0).der == 0.0


def test_everything_missed_and_nothing_to_score() -> None:
    score = metrics.diarization(turns((0, 10, "A")), [], collar_s=0.0)
    assert (score.der, score.jer) == (1.0, 1.0)
    with pytest.raises(InputError, match="no speech to score"):
        metrics.diarization([], turns((0, 10, "A")))
    with pytest.raises(InputError, match="no speech to score"):  # all of it inside the collar
        metrics.diarization(turns((1, 1.2, "A")), [], collar_s=0.25)


def test_false_alarm_beyond_the_reference_counts_in_the_whole_file() -> None:
    score = metrics.diarization(turns((0, 10, "A")), turns((0, 10, "x"), (50, 55, "y")), 60.0, 0.0)
    assert score.der == 0.5
    assert score.found_speakers == 2


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("reference", "found", "counts"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", (0, 0, 0, 6)),
        ("the cat sat on the mat", "a cat sat the mat now", (1, 1, 1, 6)),
        ("the cat sat", "", (0, 3, 0, 3)),
        ("one two", "one two three four five", (0, 0, 3, 2)),
        ("The CAT, sat!", "the cat sat", (0, 0, 0, 3)),
    ],
)
def test_wer_by_hand(reference: str, found: str, counts: tuple[int, int, int, int]) -> None:
    score = metrics.word_errors(reference, found)
    assert (score.substitutions, score.deletions, score.insertions, score.length) == counts
    assert score.rate == pytest.approx(sum(counts[:3]) / counts[3])


def test_cer_by_hand() -> None:
    score = metrics.character_errors("abcd ef", "abxd e")
    assert (score.substitutions, score.deletions, score.insertions, score.length) == (1, 1, 0, 7)


def test_scores_add_up() -> None:
    both = metrics.WordScore(1, 2, 3, 10) + metrics.WordScore(1, 0, 0, 10)
    assert (both.errors, both.rate) == (7, 0.35)


def test_a_reference_without_words_is_refused() -> None:
    for score in (metrics.word_errors, metrics.character_errors):
        with pytest.raises(InputError, match="no words"):
            score("...", "hello")


def said(*rows: tuple[float, float, str | None, str]) -> list[Utterance]:
    return [Utterance(f"u{i:04d}", "ep", a, b, t, s) for i, (a, b, s, t) in enumerate(rows, 1)]


def test_cpwer_pairs_speakers_and_counts_by_hand() -> None:
    reference = said((0, 2, "A", "hello there my friend"), (2, 4, "B", "yes it is"))
    found = said((0, 2, "S2", "hello there friend"), (2, 4, "S1", "yes it was"))
    score = metrics.cp_word_errors(reference, found)
    assert (score.substitutions, score.deletions, score.insertions, score.length) == (1, 1, 0, 7)
    # Words given to the wrong speaker are missing there and too many here.
    swapped = said((0, 2, "S1", "hello there my friend yes"), (2, 4, "S2", "it is"))
    score = metrics.cp_word_errors(reference, swapped)
    assert score.errors == 2
    assert metrics.word_errors(metrics.full_text(reference), metrics.full_text(swapped)).errors == 0


def test_tcpwer_also_wants_the_words_at_their_time() -> None:
    reference = said((0, 2, "A", "one two"), (100, 102, "A", "three"))
    late = said((50, 52, "S1", "one two"), (100, 102, "S1", "three"))
    assert metrics.cp_word_errors(reference, late).errors == 0
    assert metrics.tcp_word_errors(reference, late, collar_s=5.0).errors == 4
    assert metrics.tcp_word_errors(reference, late, collar_s=60.0).errors == 0


def test_cpwer_of_nothing_found_and_without_speakers() -> None:
    reference = said((0, 2, "A", "one two"), (2, 3, "B", "three"))
    for score in (metrics.cp_word_errors, metrics.tcp_word_errors):
        assert score(reference, []).rate == 1.0
        assert score(reference, said((0, 1, "S1", "..."))).deletions == 3
        with pytest.raises(InputError, match="u0001 has no speaker"):
            score(reference, said((0, 1, None, "one")))
        with pytest.raises(InputError, match="no words"):
            score([], reference)


def test_word_times_by_hand() -> None:
    reference = [Word("Hello,", 1.0, 1.5), Word("big", 1.5, 2.0), Word("world", 2.0, 3.0)]
    found = [Word("hello", 1.1, 1.4), Word("bug", 1.5, 2.0), Word("world", 1.8, 3.0)]
    score = metrics.word_timing(reference, found)
    assert (score.matched, score.length) == (2, 3)
    assert score.start_mean_s == pytest.approx(0.15)
    assert score.end_mean_s == pytest.approx(0.05)
    with pytest.raises(InputError, match="no word"):
        metrics.word_timing(reference, [Word("other", 0.0, 1.0)])


def test_a_word_said_as_several_is_one_word() -> None:
    score = metrics.word_timing(
        [Word("I'll", 0.0, 0.5), Word("pay", 0.5, 1.0)],
        [Word("I'll", 0.1, 0.5), Word("pay", 0.6, 1.0)],
    )
    assert (score.matched, score.length) == (2, 2)


# ---------------------------------------------------------------- audio


def noise(seed: int, channels: int = 1, frames: int = 100_000) -> Audio:
    samples = np.random.default_rng(seed).standard_normal((channels, frames)).astype(np.float32)
    return Audio(samples, 1000)  # 100 s: several blocks


def test_si_sdr_of_a_known_mixture() -> None:
    clean = noise(0)
    other = noise(1).samples
    other -= (other @ clean.samples.T) / (clean.samples @ clean.samples.T) * clean.samples
    gain = math.sqrt(float((clean.samples**2).sum() / (other**2).sum()) / 10**1.2)  # 12 dB
    mixed = Audio((0.3 * (clean.samples + gain * other)).astype(np.float32), 1000)
    assert metrics.si_sdr(clean, mixed) == pytest.approx(12.0, abs=1e-3)


def test_si_sdr_agrees_with_fast_bss_eval() -> None:
    fast_bss_eval = pytest.importorskip("fast_bss_eval")
    clean = noise(2)
    mixed = Audio(clean.samples + 0.5 * noise(3).samples, 1000)
    theirs = fast_bss_eval.si_sdr(clean.samples.astype(float), mixed.samples.astype(float))
    assert metrics.si_sdr(clean, mixed) == pytest.approx(float(theirs[0]), abs=1e-4)


def test_si_sdr_limits_and_refusals() -> None:
    clean = noise(4, channels=2)
    assert metrics.si_sdr(clean, clean) == metrics.SI_SDR_LIMIT_DB
    silent = Audio(np.zeros_like(clean.samples), 1000)
    assert metrics.si_sdr(clean, silent) == -metrics.SI_SDR_LIMIT_DB
    with pytest.raises(InputError, match="not silent"):
        metrics.si_sdr(silent, clean)
    with pytest.raises(InputError, match="1000 Hz, 2 channels, 99999 samples"):
        metrics.si_sdr(clean, clean.read(1))


def test_similarity() -> None:
    a = np.array([1.0, 0.0], np.float32)
    b = np.array([1.0, 1.0], np.float32)
    assert metrics.similarity(a, b) == pytest.approx(math.sqrt(0.5))
    assert metrics.similarity(a, np.zeros(2, np.float32)) == 0.0
    with pytest.raises(InputError, match="different models"):
        metrics.similarity(a, np.zeros(3, np.float32))


# ---------------------------------------------------------------- bars


def test_bars() -> None:
    values = {"der": 0.04, "similarity": 0.7, "lufs": -16.0}
    assert metrics.breaches(values, {"der": 0.05, "similarity": 0.65}) == []
    assert metrics.breaches(values, {"der": 0.04}) == []
    assert metrics.breaches(values, {"der": 0.03, "similarity": 0.8}) == [
        "der is 0.04, worse than 0.03",
        "similarity is 0.7, worse than 0.8",
    ]
    with pytest.raises(InputError, match="wer was not measured"):
        metrics.breaches(values, {"wer": 0.1})


def test_an_hour_of_turns_is_scored_quickly() -> None:
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(0, 3600, 1200))
    reference = turns(*((float(s), float(s + 2), f"S{i % 4}") for i, s in enumerate(starts)))
    began = time.perf_counter()
    assert metrics.diarization(reference, reference, 3700.0).der == 0.0
    assert time.perf_counter() - began < 20.0
