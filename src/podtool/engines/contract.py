"""What an engine's answer must be, asked of every answer that comes out of a worker or a program.

Shapes, finite numbers, times within the audio: an engine that returns nonsense fails, and the rows
never see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineInfo, VoiceSpan
from podtool.errors import EngineFailure
from podtool.segments import Span

_SLACK_S = 0.5  # recognisers with coarse frames may end a little after the audio


def check(info: EngineInfo, method: str, args: Sequence[Any], answer: Any) -> Any:
    """The answer of `method` as it came. Raises EngineFailure where it breaks the contract."""
    rule = _RULES.get(method)
    fault = None if rule is None else rule(args, answer)
    if fault:
        raise EngineFailure(f"the {info.stage} engine {info.name} answers with nonsense: {fault}")
    return answer


def _detect(args: Sequence[Any], answer: Any) -> str | None:
    if not _list_of(answer, Span):
        return "not a list of spans"
    return next((f for s in answer if (f := _times(s.start, s.end, args[0]))), None)


def _activity(args: Sequence[Any], answer: Any) -> str | None:
    return _array(answer, 2)


def _diarize(args: Sequence[Any], answer: Any) -> str | None:
    if not _list_of(answer, VoiceSpan):
        return "not a list of spans with voices"
    if any(type(s.voice) is not int or s.voice < 0 for s in answer):
        return "a voice that is no number"
    return next((f for s in answer if (f := _times(s.start, s.end, args[0]))), None)


def _embed(args: Sequence[Any], answer: Any) -> str | None:
    fault = _array(answer, 1)
    if fault is None and abs(float(np.linalg.norm(answer)) - 1) > 1e-2:
        return "a vector that is not of unit norm"
    return fault


def _separate(args: Sequence[Any], answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or "speech" not in answer:
        return "no stem called speech"
    return next((f for stem in answer.values() if (f := _like(args[0], stem))), None)


def _talkers(args: Sequence[Any], answer: Any) -> str | None:
    fault = _array(answer, 2)
    wanted = (args[1], args[0].frames)
    if fault is None and answer.shape != wanted:
        return f"an array of shape {answer.shape} in place of {wanted}"
    return fault


def _transcribe(args: Sequence[Any], answer: Any) -> str | None:
    if not _list_of(answer, Utterance):
        return "not a list of utterances"
    for row in answer:
        if not isinstance(row.text, str):
            return "an utterance without text"
        for part in (row, *(row.words or ())):
            fault = _times(part.start, part.end, args[0])
            if fault:
                return fault
    return None


def _transcribe_many(args: Sequence[Any], answer: Any) -> str | None:
    if not isinstance(answer, list) or len(answer) != len(args[0]):
        return "not one list of utterances for each stretch"
    pairs = zip(args[0], answer, strict=True)
    return next((f for audio, found in pairs if (f := _transcribe([audio], found))), None)


def _align(args: Sequence[Any], answer: Any) -> str | None:
    if not _list_of(answer, Word):
        return "not a list of words"
    if [w.text for w in answer] != list(args[1]):
        return "other words than it was given"
    return next((f for w in answer if (f := _times(w.start, w.end, args[0]))), None)


def _speak(args: Sequence[Any], answer: Any) -> str | None:
    for block in answer:
        if not isinstance(block, Audio) or block.samples.ndim != 2 or block.sample_rate < 1:
            return "not audio"
        if not np.isfinite(block.samples).all():
            return "NaN"
    return None


def _list_of(answer: Any, kind: type[Any]) -> bool:
    return isinstance(answer, list) and all(isinstance(v, kind) for v in answer)


def _times(start: Any, end: Any, audio: Audio) -> str | None:
    limit = audio.duration + _SLACK_S
    if not all(isinstance(t, (int, float)) and math.isfinite(t) for t in (start, end)):
        return "a time that is no number"
    if not 0 <= start <= end <= limit:
        return f"times {start:.3f} to {end:.3f} s in {audio.duration:.3f} s of audio"
    return None


def _array(answer: Any, dimensions: int) -> str | None:
    if not isinstance(answer, np.ndarray) or answer.ndim != dimensions:
        return f"not an array of {dimensions} dimensions"
    return None if np.isfinite(answer).all() else "NaN"


def _like(audio: Audio, stem: Any) -> str | None:
    if not isinstance(stem, Audio) or stem.samples.shape != audio.samples.shape:
        return "a stem of another shape than its input"
    if stem.sample_rate != audio.sample_rate:
        return f"a stem at {stem.sample_rate} Hz of audio at {audio.sample_rate} Hz"
    return None if np.isfinite(stem.samples).all() else "NaN"


_RULES: dict[str, Callable[[Sequence[Any], Any], str | None]] = {
    "detect": _detect,
    "activity": _activity,
    "diarize": _diarize,
    "embed": _embed,
    "separate": _separate,
    "talkers": _talkers,
    "transcribe": _transcribe,
    "transcribe_at": _transcribe,
    "transcribe_many": _transcribe_many,
    "align": _align,
    "speak": _speak,
}
