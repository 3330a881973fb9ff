"""Thin views on pyannote.metrics, jiwer and meeteval, and the few measures that need no package.

Conventions, stated wherever a figure is shown: a collar is the seconds left out on either side of
a reference boundary (twice that in pyannote.metrics), overlap is scored, the whole file counts.
Words are compared after `podtool.text.normalise`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Turn, Utterance, Word
from podtool.audio import AudioSource, blocks
from podtool.errors import InputError
from podtool.segments import Span, union
from podtool.text import normalise

COLLAR_S = 0.25
WORD_COLLAR_S = 5.0  # of tcpWER: meeteval's own default
SI_SDR_LIMIT_DB = 150.0  # what an exact copy is called; JSON has no infinity


# ---------------------------------------------------------------- diarization


@dataclass(frozen=True, slots=True)
class DiarizationScore:
    """Seconds of each kind of error over `total_s` of reference speech; rates are shares."""

    missed_s: float
    false_alarm_s: float
    confusion_s: float
    total_s: float
    jer: float
    reference_speakers: int
    found_speakers: int
    collar_s: float

    @property
    def der(self) -> float:
        """Diarization error rate; above 1 is possible."""
        return (self.missed_s + self.false_alarm_s + self.confusion_s) / self.total_s


def diarization(
    reference: Sequence[Turn],
    found: Sequence[Turn],
    duration_s: float | None = None,
    collar_s: float = COLLAR_S,
    skip_overlap: bool = False,
) -> DiarizationScore:
    """DER and JER of the turns of one recording (pyannote.metrics; Ryant et al. 2019 for JER).

    Scored from 0 to `duration_s` (default: the last end on either side). Raises InputError where
    the reference has no speech to score.
    """
    from pyannote.core import Segment as PySegment
    from pyannote.core import Timeline
    from pyannote.metrics import diarization as scorers

    der: Any = scorers.DiarizationErrorRate
    jer_of: Any = scorers.JaccardErrorRate
    last = max((t.end for t in [*reference, *found]), default=0.0)
    uem = Timeline([PySegment(0.0, max(last, duration_s or 0.0))])
    settings: dict[str, Any] = {"collar": 2 * collar_s, "skip_overlap": skip_overlap}
    left, right = _annotation(reference), _annotation(found)
    parts = der(**settings)(left, right, uem=uem, detailed=True)
    total = float(parts["total"])
    if total <= 0:
        raise InputError("the reference has no speech to score against")
    # JER averages over the reference's speakers; it is not defined for an empty hypothesis.
    jer = float(jer_of(**settings)(left, right, uem=uem)) if found else 1.0
    return DiarizationScore(
        missed_s=float(parts["missed detection"]),
        false_alarm_s=float(parts["false alarm"]),
        confusion_s=float(parts["confusion"]),
        total_s=total,
        jer=jer,
        reference_speakers=len(left.labels()),
        found_speakers=len(right.labels()),
        collar_s=collar_s,
    )


def _annotation(turns: Iterable[Turn]) -> Any:
    """Turns as pyannote sees them; the turns of one speaker are merged where they overlap."""
    from pyannote.core import Annotation
    from pyannote.core import Segment as PySegment

    spans: dict[str, list[Span]] = {}
    for turn in turns:
        spans.setdefault(turn.speaker, []).append(Span(turn.start, turn.end))
    annotation = Annotation()
    for speaker, own in spans.items():
        for span in union(own):
            annotation[PySegment(span.start, span.end), speaker] = speaker
    return annotation


# ---------------------------------------------------------------- words


@dataclass(frozen=True, slots=True)
class WordScore:
    """Counts of errors against `length` reference words (or characters)."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        return self.errors / self.length

    def __add__(self, other: WordScore) -> WordScore:
        return WordScore(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )


def word_errors(reference: str, found: str) -> WordScore:
    """WER of two texts after the normaliser. Raises InputError for a reference without words."""
    import jiwer

    left, right = _normalised(reference), normalise(found)
    return _counts(jiwer.process_words(left, right), len(left.split()))


def character_errors(reference: str, found: str) -> WordScore:
    """CER of two texts after the normaliser, spaces between words included."""
    import jiwer

    left, right = _normalised(reference), normalise(found)
    return _counts(jiwer.process_characters(left, right), len(left))


def _normalised(reference: str) -> str:
    text = normalise(reference)
    if not text:
        raise InputError("the reference has no words to score against")
    return text


def _counts(output: Any, length: int) -> WordScore:
    return WordScore(output.substitutions, output.deletions, output.insertions, length)


def full_text(utterances: Iterable[Utterance]) -> str:
    """The texts of utterances in order of their starts."""
    return " ".join(u.text for u in sorted(utterances, key=lambda u: (u.start, u.end)))


def cp_word_errors(reference: Sequence[Utterance], found: Sequence[Utterance]) -> WordScore:
    """cpWER of one recording (meeteval): words by speaker, in the best pairing of speakers."""
    import meeteval.wer

    return _multi_speaker(reference, found, meeteval.wer.cpwer)


def tcp_word_errors(
    reference: Sequence[Utterance], found: Sequence[Utterance], collar_s: float = WORD_COLLAR_S
) -> WordScore:
    """tcpWER of one recording (meeteval): as cpWER, but words match only within `collar_s`.

    The times of words are estimated from those of utterances on both sides, as meeteval does.
    """
    import meeteval.wer

    # It takes an utterance for a word when it looks at the times, and warns of words that are
    # longer than the collar.
    chatter = logging.getLogger("preprocess")
    before = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        return _multi_speaker(
            reference, found, lambda *sides: meeteval.wer.tcpwer(*sides, collar=collar_s)
        )
    finally:
        chatter.setLevel(before)


def _multi_speaker(
    reference: Sequence[Utterance], found: Sequence[Utterance], score: Any
) -> WordScore:
    left, right = _segments(reference), _segments(found)
    length = sum(len(str(s["words"]).split()) for s in left)
    if not length:
        raise InputError("the reference has no words to score against")
    if not right:
        return WordScore(0, length, 0, length)
    from meeteval.io import SegLST

    result = score(SegLST(left), SegLST(right))["-"]
    return _counts(result, int(result.length))


def _segments(utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
    found = []
    for u in utterances:
        if u.speaker is None:
            raise InputError(f"utterance {u.id} has no speaker: cpWER needs one for each")
        if words := normalise(u.text):
            found.append(
                {
                    "session_id": "-",
                    "speaker": u.speaker,
                    "start_time": u.start,
                    "end_time": u.end,
                    "words": words,
                }
            )
    return found


@dataclass(frozen=True, slots=True)
class TimingScore:
    """Errors of the times of `matched` words of `length`, in seconds; nothing is left out."""

    start_mean_s: float
    start_median_s: float
    start_p95_s: float
    end_mean_s: float
    matched: int
    length: int


def word_timing(reference: Sequence[Word], found: Sequence[Word]) -> TimingScore:
    """Absolute errors of word starts and ends, for words that both sides have in the same order.

    Words are paired by the alignment behind WER. Raises InputError where no word is the same.
    """
    import jiwer

    left, right = _tokens(reference), _tokens(found)
    starts: list[float] = []
    ends: list[float] = []
    if left and right:
        output = jiwer.process_words(" ".join(t for t, _ in left), " ".join(t for t, _ in right))
        for chunk in output.alignments[0]:
            if chunk.type != "equal":
                continue
            for i, j in zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            ):
                starts.append(abs(left[i][1].start - right[j][1].start))
                ends.append(abs(left[i][1].end - right[j][1].end))
    if not starts:
        raise InputError("no word of the reference was found: there are no times to compare")
    return TimingScore(
        start_mean_s=float(np.mean(starts)),
        start_median_s=float(np.median(starts)),
        start_p95_s=float(np.quantile(starts, 0.95)),
        end_mean_s=float(np.mean(ends)),
        matched=len(starts),
        length=len(left),
    )


def _tokens(words: Iterable[Word]) -> list[tuple[str, Word]]:
    """One token for each word by start; a word that is said as several is joined by hyphens."""
    ordered = sorted(words, key=lambda w: (w.start, w.end))
    return [("-".join(text.split()), w) for w in ordered if (text := normalise(w.text))]


# ---------------------------------------------------------------- audio


def si_sdr(reference: AudioSource, estimate: AudioSource) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), read in blocks.

    All channels as one signal, means not removed; between -SI_SDR_LIMIT_DB and SI_SDR_LIMIT_DB.
    Raises InputError for another rate, length or layout, or a silent reference.
    """
    facts = [(a.sample_rate, a.channels, a.frames) for a in (reference, estimate)]
    if facts[0] != facts[1]:
        raise InputError(
            "SI-SDR compares signals of the same rate, channels and length: "
            + " against ".join(f"{r} Hz, {c} channels, {n} samples" for r, c, n in facts)
        )
    energy = dot = 0.0
    for start, block in blocks(reference):
        clean = block.samples.astype(np.float64)
        other = estimate.read(start, start + block.frames).samples
        energy += float((clean**2).sum())
        dot += float((clean * other).sum())
    if energy == 0.0:
        raise InputError("SI-SDR needs a reference that is not silent")
    scale = dot / energy
    noise = 0.0
    for start, block in blocks(reference):
        other = estimate.read(start, start + block.frames).samples
        noise += float(((other - scale * block.samples.astype(np.float64)) ** 2).sum())
    signal = scale * scale * energy
    if signal == 0.0:
        return -SI_SDR_LIMIT_DB
    ratio = SI_SDR_LIMIT_DB if noise == 0.0 else 10 * math.log10(signal / noise)
    return max(-SI_SDR_LIMIT_DB, min(SI_SDR_LIMIT_DB, ratio))


def similarity(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Cosine of two embeddings (dim,) of the same model. Raises InputError for other shapes."""
    if a.shape != b.shape:
        raise InputError(f"embeddings of {a.shape} and {b.shape} are of different models")
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.dot(a.astype(np.float64), b.astype(np.float64))) / norm if norm else 0.0


# ---------------------------------------------------------------- bars to reach

# Where more is better; every other metric is an error, where less is.
MORE_IS_BETTER = frozenset({"similarity", "si_sdr", "si_sdr_improvement", "words_matched"})


def breaches(values: Mapping[str, float], bars: Mapping[str, float]) -> list[str]:
    """A line for each metric that is worse than its bar: above it for errors, below it for the
    rest. Raises InputError for a bar on something that was not measured."""
    found = []
    for name, bar in bars.items():
        if name not in values:
            raise InputError(
                f"{name} was not measured, so it cannot be held to {bar:g}",
                f"Measured: {', '.join(sorted(values)) or 'nothing'}.",
            )
        value = values[name]
        worse = value < bar if name in MORE_IS_BETTER else value > bar
        if worse:
            found.append(f"{name} is {value:.4g}, worse than {bar:g}")
    return found
