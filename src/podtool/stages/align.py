"""Words on the clock: known text and its audio -> utterances whose every word has times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio, AudioSource
from podtool.engines.protocols import AlignmentEngine
from podtool.progress import OnProgress, Progress, ignore
from podtool.resample import at_rate
from podtool.stages.doubts import odd_duration


@dataclass(frozen=True, slots=True)
class AlignParams:
    margin_s: float = field(
        default=0.1, metadata={"help": "Audio read before and after an utterance, in seconds."}
    )


def align(
    audio: AudioSource,
    utterances: Sequence[Utterance],
    aligner: AlignmentEngine,
    params: AlignParams | None = None,
    on_progress: OnProgress = ignore,
) -> list[Utterance]:
    """The utterances with new word times, as after an edit of their text or their bounds.

    Word times lie within the utterance; its text, bounds and speaker stay.
    """
    params = params or AlignParams()
    source = at_rate(audio, aligner.info.sample_rate)
    length_s = source.frames / source.sample_rate
    result: list[Utterance] = []
    for done, utterance in enumerate(utterances):
        start = max(0.0, utterance.start - params.margin_s)
        end = min(length_s, utterance.end + params.margin_s)
        window = read_span(source, start, end)
        words = place_words(window, utterance.text.split(), aligner, start)
        bounded = tuple(_within(w, utterance.start, utterance.end) for w in words)
        doubts = (utterance.extra or {}).get("doubts", ())
        others = {k: v for k, v in (utterance.extra or {}).items() if k not in FLAGS}
        extra = {**others, **(flags(bounded, doubts) or {})} or None
        result.append(replace(utterance, words=bounded, extra=extra))
        on_progress(Progress("align", done + 1, len(utterances), "utterances"))
    return result


def read_span(source: AudioSource, start: float, end: float) -> Audio:
    """The samples from `start` to `end` seconds."""
    rate = source.sample_rate
    return source.read(round(start * rate), min(source.frames, round(end * rate)))


def place_words(
    window: Audio, words: Sequence[str], aligner: AlignmentEngine, offset_s: float
) -> list[Word]:
    """Words aligned in a window that starts at `offset_s` of the recording, on its clock."""
    if not words:
        return []
    return [
        replace(w, start=w.start + offset_s, end=w.end + offset_s)
        for w in aligner.align(window, list(words))
    ]


FLAGS = ("doubts", "odd_durations")


def flags(words: Sequence[Word], doubts: Sequence[str] = ()) -> dict[str, Any] | None:
    """What an utterance says beside its text (`extra`): why its text is doubtful, and which words
    (by index) last longer or shorter than they can be said. None where nothing is odd.
    """
    odd = [i for i, w in enumerate(words) if odd_duration(w)]
    found: dict[str, Any] = {}
    if doubts:
        found["doubts"] = list(doubts)
    if odd:
        found["odd_durations"] = odd
    return found or None


def _within(word: Word, start: float, end: float) -> Word:
    first = min(max(word.start, start), end)
    return replace(word, start=first, end=min(max(word.end, first), end))
