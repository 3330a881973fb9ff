"""Engines that step in for one that fails: the chunk is done by the next, and the rows say so.

A `Fallback` answers like its first engine: what it is given is at that engine's rate and channels,
and what another one answers is brought back to them. The first is asked again for the next chunk,
until it has failed three times in a row.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Utterance
from podtool.audio import Audio
from podtool.dsp import overlap_add, window_starts
from podtool.engines.contract import check
from podtool.engines.protocols import EngineContext, EngineInfo, Incident
from podtool.errors import EngineFailure, EngineUnavailableError, ModelError, PodtoolError
from podtool.resample import resample

log = logging.getLogger(__name__)

# Where another engine's answer means the same. Embeddings and voice maps live in a space of their
# engine, and the classes of a segmentation are its own.
STAGES = ("vad", "separation", "talkers", "transcription", "alignment", "speaking")
_PATIENCE = 3


class Fallback:
    """The first of `names`, with the others behind it; each is loaded when it is first needed.

    Raises what the last one raised where all fail. `answered_by` is the engine of the last answer.
    """

    def __init__(
        self,
        stage: str,
        names: Sequence[str],
        info: EngineInfo,
        kind: type[Any],
        context: EngineContext,
        load: Callable[[str], Any],
    ) -> None:
        self.info = info
        self.answered_by = info.name
        self._stage, self._names, self._kind = stage, list(names), kind
        self._context, self._load = context, load
        self._engines: dict[str, Any] = {}
        self._failures: dict[str, int] = {}
        self._lock = threading.RLock()
        self._first()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        member = getattr(self._kind, name, None)
        if not callable(member):
            return getattr(self._first(), name)

        def call(*args: Any, **named: Any) -> Any:
            return self._call(name, args, named)

        call.__signature__ = inspect.signature(member)  # type: ignore[attr-defined]
        return call

    def close(self) -> None:
        """End the workers among the engines."""
        for engine in self._engines.values():
            getattr(engine, "close", lambda: None)()
        self._engines.clear()

    def _first(self) -> Any:
        """The first engine that loads. Raises what the last one raised."""
        return next(self._loaded())[1]

    def _loaded(self) -> Iterator[tuple[str, Any]]:
        """The engines in order, as far as they load."""
        failed: PodtoolError | None = None
        for name in self._names:
            if self._failures.get(name, 0) >= _PATIENCE:
                continue
            try:
                if name not in self._engines:
                    self._engines[name] = self._load(name)
            except (EngineUnavailableError, ModelError, EngineFailure) as error:
                failed = error
                self._failures[name] = _PATIENCE
                log.warning("%s %s: %s", self._stage, name, error.message)
                continue
            yield name, self._engines[name]
        if failed is not None:
            raise failed

    def _call(self, method: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        with self._lock:
            failed: Exception | None = None
            reason = "it does not load"
            for name, engine in self._loaded():
                try:
                    answer = _ask(engine, method, args, named)
                    if isinstance(answer, Iterator):
                        answer = iter(check(engine.info, method, args, list(answer)))
                    else:
                        check(engine.info, method, args, answer)
                except PodtoolError as error:
                    stepping_in = name != self._names[0]
                    if not isinstance(error, EngineFailure) and not stepping_in:
                        raise  # the request is at fault, not the engine
                    if method == "transcribe_many" and "memory" in error.message.lower():
                        raise  # the stage asks again for fewer at once
                    failed, reason = error, str(error.__cause__ or error)
                except Exception as error:
                    failed, reason = error, f"{type(error).__name__}: {error}"
                else:
                    self._failures[name] = 0
                    self._answered(name, reason)
                    return _marked(answer, name) if name != self.info.name else answer
                self._failures[name] = self._failures.get(name, 0) + 1
                given_up = self._failures[name] >= _PATIENCE
                log.warning("%s %s: %s%s", self._stage, name, reason,
                            "; it is not asked again" if given_up else "")  # fmt: skip
            if isinstance(failed, PodtoolError):
                raise failed
            raise EngineFailure(f"every {self._stage} engine fails: {reason}") from failed

    def _answered(self, name: str, reason: str) -> None:
        self.answered_by = name
        if name != self.info.name:
            incident = Incident(self._stage, self.info.name, reason, name)
            self._context.incidents.append(incident)


def _ask(engine: Any, method: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The answer of an engine to a question that may have been put for another one."""
    if method == "separate":
        return _separate(engine, args[0], named)
    if method == "talkers":
        heard = _at(args[0], engine.info)
        apart = Audio(engine.talkers(heard, *args[1:]), heard.sample_rate)
        return _back(apart, args[0]).samples
    if method == "transcribe_many" and not hasattr(engine, method):
        return [_ask(engine, "transcribe", (a, *args[1:]), named) for a in args[0]]
    if method == "transcribe_at" and not hasattr(engine, method):
        method, args = "transcribe", args[:2]
    window = engine.info.window_s
    audio = args[0] if args and isinstance(args[0], Audio) else None
    if audio is not None and window is not None and audio.duration > window + 0.1:
        raise EngineFailure(f"{engine.info.name} takes {window:g} s at most")
    found = getattr(engine, method, None)
    if found is None:
        raise EngineFailure(f"{engine.info.name} has no {method}")
    return found(*(_heard(a, engine.info) for a in args), **_known(found, named))


def _separate(engine: Any, audio: Audio, named: dict[str, Any]) -> dict[str, Audio]:
    """Window by window and channel by channel, where the engine wants other ones."""
    info = engine.info
    heard = _at(audio, info)
    size = info.channels or heard.channels
    if size != heard.channels:
        parts = [
            _separate(engine, Audio(np.repeat(c[None], size, 0), heard.sample_rate), named)
            for c in heard.samples
        ]
        voices = np.concatenate([p["speech"].samples[:1] for p in parts])
        return {"speech": _back(Audio(voices, heard.sample_rate), audio)}
    given = _known(engine.separate, named)
    window = heard.frames if info.window_s is None else round(info.window_s * heard.sample_rate)
    if heard.frames <= window:
        return {n: _back(s, audio) for n, s in engine.separate(heard, **given).items()}
    given.pop("speech", None)  # its times are those of the whole
    hop = math.ceil(window * 0.9)
    starts = window_starts(heard.frames, window, hop)
    pieces = [heard.read(s, min(s + window, heard.frames)) for s in starts]
    voice = [engine.separate(p, **given)["speech"].samples for p in pieces]
    whole = np.concatenate(list(overlap_add(voice, heard.frames, window, hop)), axis=1)
    return {"speech": _back(Audio(whole, heard.sample_rate), audio)}


def _heard(value: Any, info: EngineInfo) -> Any:
    if isinstance(value, Audio):
        return _at(value, info)
    if isinstance(value, list) and value and isinstance(value[0], Audio):
        return [_at(a, info) for a in value]
    return value


def _at(audio: Audio, info: EngineInfo) -> Audio:
    return resample(audio, info.sample_rate) if info.sample_rate else audio


def _back(audio: Audio, like: Audio) -> Audio:
    """Audio at the rate and of the length of `like`."""
    samples: NDArray[np.float32] = resample(audio, like.sample_rate).samples[:, : like.frames]
    if samples.shape[1] < like.frames:
        samples = np.pad(samples, ((0, 0), (0, like.frames - samples.shape[1])))
    return Audio(samples, like.sample_rate)


def _known(function: Callable[..., Any], named: dict[str, Any]) -> dict[str, Any]:
    takes = inspect.signature(function).parameters
    return {k: v for k, v in named.items() if k in takes}


def _marked(answer: Any, name: str) -> Any:
    """Utterances say in `extra` which engine stepped in."""
    if not isinstance(answer, list):
        return answer
    return [
        replace(r, extra={**(r.extra or {}), "engine": name}) if isinstance(r, Utterance)
        else _marked(r, name)
        for r in answer
    ]  # fmt: skip
