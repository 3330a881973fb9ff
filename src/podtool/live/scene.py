"""Who talks when, as it is decided: regions of chains, and the units that tell whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.engines.diarization_windows import pauses
from podtool.engines.embedding_campplus import CamPlusPlus
from podtool.engines.segmentation_pyannote import (
    FRAME_SIZE,
    FRAME_STEP,
    PyannoteSegmentation,
)
from podtool.engines.vad_silero import CHUNK
from podtool.live.rolling import WINDOW_FRAMES, Rolling
from podtool.live.tracker import FRAME_S, Tracker, TrackerParams, Unit

Floats = NDArray[np.float32]
Runs = list[tuple[int, int]]
HOP_FRAMES = 30  # between windows, .506 s
_WARM = 60  # frames from which a decision does not hang on where it began
HALF_FRAME = (FRAME_SIZE - FRAME_STEP) // 2  # a frame stands for the middle of what it sees


@dataclass(frozen=True, slots=True)
class SceneParams:
    """Settings of the scene; those named as in diarization mean the same."""

    margin_s: float = field(default=0.12, metadata={"help": "of a window's end nothing is decided"})
    speech_onset: float = field(default=0.5, metadata={"help": "probability that starts speech"})
    speech_offset: float = field(default=0.3, metadata={"help": "probability that ends speech"})
    overlap_onset: float = field(default=0.4, metadata={"help": "probability of two voices"})
    third_onset: float = field(default=0.55, metadata={"help": "activity of a third voice"})
    hold: float = field(default=0.2, metadata={"help": "activity by which another takes over"})
    purity: float = field(default=0.3, metadata={"help": "second voice that spoils an embedding"})
    least_voice: float = field(default=0.25, metadata={"help": "Silero's mean, else it is music"})
    first_s: float = field(default=1.0, metadata={"help": "speech that a chain is first known by"})
    unit_s: float = field(default=2.5, metadata={"help": "speech of each later embedding"})
    pause_s: float = field(default=0.15, metadata={"help": "silence that ends an embedding"})
    shortest_s: float = field(default=0.3, metadata={"help": "shorter stretches are not embedded"})
    settled_s: float = field(default=0.8, metadata={"help": "age at which frames are embedded"})
    turns_s: float = field(default=4.0, metadata={"help": "age at which turns are written down"})
    ended_s: float = field(default=1.0, metadata={"help": "silence after which a chain is over"})


@dataclass(frozen=True, slots=True)
class Region:
    """Frames [start, stop) in which the same chains talk."""

    start: int
    stop: int
    chains: tuple[int, ...]


@dataclass(slots=True)
class _Gathering:
    """What a chain said that is not embedded yet."""

    next: int  # frame that is looked at next
    alone: Runs = field(default_factory=list)
    mixed: Runs = field(default_factory=list)
    units: int = 0
    last: int = 0  # frame at which it was last active


class Ring:
    """The last samples of a stream, by their number from its start."""

    def __init__(self, keep: int) -> None:
        self._samples = np.zeros(2 * keep, np.float32)
        self._keep = keep
        self._base = 0
        self.end = 0

    def push(self, block: NDArray[np.float32]) -> None:
        size = len(self._samples)
        for at in range(0, len(block), self._keep):
            piece = block[at : at + self._keep]
            if self.end - self._base + len(piece) > size:
                kept = self._samples[self.end - self._base - self._keep : self.end - self._base]
                self._samples[: self._keep] = kept.copy()
                self._base = self.end - self._keep
            first = self.end - self._base
            self._samples[first : first + len(piece)] = piece
            self.end += len(piece)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples [start, stop); zeros where they are not kept or have not come."""
        out = np.zeros(max(0, stop - start), np.float32)
        a, b = max(start, self._base), min(stop, self.end)
        if b > a:
            out[a - start : b - start] = self._samples[a - self._base : b - self._base]
        return out


class Scene(Protocol):
    """Who talks, as audio comes in. `hop` after every `HOP_FRAMES` frames of audio; `embed` when
    there is time."""

    tracker: Tracker

    @property
    def decided(self) -> int:
        """Frames up to which `hop` and `skip` have decided."""
        ...

    def voiced(self, probabilities: Floats) -> None:
        """Silero's probabilities of the next chunks."""

    def hop(self, last: bool = False) -> list[Region]:
        """The regions that are decided by the audio so far; `last`: nothing will follow."""
        ...

    def skip(self) -> list[Region]:
        """Nobody speaks: the audio so far is decided without looking."""
        ...

    def settle(self, last: bool = False) -> list[Region]:
        """The regions up to a while ago, as they look by now; each frame once."""
        ...

    def review(self, start: int, stop: int) -> list[Region]:
        """Frames that were decided lately, as they look by now."""
        ...

    def forget(self) -> None:
        """What comes next has nothing to do with what was."""

    @property
    def waiting(self) -> int:
        """How many stretches are to be embedded."""
        ...

    def embed(self) -> None:
        """Embed one stretch and tell the tracker: first of somebody who is not known."""

    def hear_apart(self, chain: int, start: int, stop: int, samples: Floats) -> None:
        """What a chain says in frames [start, stop) while others talk, apart from them."""


class _Decider:
    """Votes into regions, up to wherever they are asked for."""

    def __init__(
        self, rolling: Rolling, voice: _Voiced, params: SceneParams, decided: int = 0
    ) -> None:
        self.decided = decided
        self._rolling, self._voice, self._params = rolling, voice, params
        self._speaking = False
        self._before: set[int] = set()  # who talked in the last frame

    def skip(self, stop: int) -> list[Region]:
        start, self.decided = self.decided, max(self.decided, stop)
        self._speaking = False
        return [Region(start, stop, ())] if stop > start else []

    def decide(self, stop: int) -> list[Region]:
        """Frames from where it stopped to `stop`."""
        start, p = self.decided, self._params
        if stop <= start:
            return []
        many = self._rolling.how_many(start, stop)
        speech = np.zeros(stop - start, bool)
        for k, value in enumerate(1 - many[:, 0]):
            self._speaking = bool(value >= (p.speech_offset if self._speaking else p.speech_onset))
            speech[k] = self._speaking
        speech &= self._voice.human(start, stop, p.least_voice)
        chains = self._rolling.chains(start, stop)
        traces = np.zeros((len(chains) + 3, stop - start), np.float32)
        for row, chain in enumerate(chains):
            traces[row] = self._rolling.trace(chain, start, stop)
        self._hold(chains, traces)
        order = np.argsort(-traces, axis=0, kind="stable")
        ranked = np.take_along_axis(traces, order, 0)
        count = (speech & (ranked[0] > 0)).astype(int)
        count += (count > 0) & (many[:, 2] > p.overlap_onset) & (ranked[1] > 0.1)
        count += (count > 1) & (ranked[2] > p.third_onset)
        found: list[Region] = []
        for k in range(stop - start):
            who = tuple(sorted(chains[i] for i in order[: count[k], k]))
            if found and found[-1].chains == who:
                found[-1] = Region(found[-1].start, start + k + 1, who)
            else:
                found.append(Region(start + k, start + k + 1, who))
        self.decided = stop
        self._before = set(found[-1].chains)
        return found

    def _hold(self, chains: list[int], traces: Floats) -> None:
        """Who talks goes on talking, unless somebody else is clearly more active by now."""
        now = self._before
        for k in range(traces.shape[1]):
            for row, chain in enumerate(chains):
                if chain in now:
                    traces[row, k] += self._params.hold
            now = {chains[int(traces[: len(chains), k].argmax())]} if chains else set()


class _Voiced:
    """Silero's probabilities of the last minutes."""

    def __init__(self) -> None:
        self._known: list[float] = []
        self._base = 0  # chunk that they begin with

    def push(self, probabilities: Floats) -> None:
        self._known += probabilities.tolist()
        if len(self._known) > 8000:
            self._known, self._base = self._known[4000:], self._base + 4000

    def human(self, start: int, stop: int, least: float) -> NDArray[np.bool_]:
        """(stop - start,): whether speech is heard within half a second of frames."""
        reach = round(0.5 / FRAME_S)
        frames = np.arange(start - reach, stop + reach)
        chunks = (frames * FRAME_STEP + FRAME_SIZE // 2) // CHUNK - self._base
        known = np.array(self._known or [0.0], np.float32)
        values = known[np.clip(chunks, 0, len(known) - 1)]
        mean = np.convolve(values, np.ones(2 * reach + 1) / (2 * reach + 1), "valid")
        return np.asarray(mean >= least)


class RoomScene:
    """People in one room, by segmentation of a window that rolls."""

    def __init__(
        self,
        audio: Ring,
        segmentation: PyannoteSegmentation,
        embedding: CamPlusPlus,
        params: SceneParams,
        tracker: TrackerParams,
        enrolled: Mapping[str, Floats] | None = None,
    ) -> None:
        self.params = params
        self.rolling = Rolling(segmentation)
        self.tracker = Tracker(tracker, enrolled, self._paused)
        self._audio, self._embedding = audio, embedding
        self._voice = _Voiced()
        self._fast = _Decider(self.rolling, self._voice, params)
        self._slow = _Decider(self.rolling, self._voice, params)
        self._gathering: dict[int, _Gathering] = {}
        self._units: list[Unit] = []

    def voiced(self, probabilities: Floats) -> None:
        self._voice.push(probabilities)

    def forget(self) -> None:
        self.rolling.forget()

    # ------------------------------------------------------------------ who talks

    def hop(self, last: bool = False) -> list[Region]:
        """Hear the window that ends with the audio so far; the regions that are decided by it."""
        available = max(0, (self._audio.end - FRAME_SIZE) // FRAME_STEP + 1)
        first = max(0, available - (WINDOW_FRAMES - 3))
        if available > self.rolling.end:
            start = first * FRAME_STEP
            self.rolling.hear(self._audio.read(start, self._audio.end), first)
        margin = 0 if last else round(self.params.margin_s / FRAME_S)
        found = self._fast.decide(max(self._fast.decided, self.rolling.end - margin))
        self._gather(found, last)
        return found

    def skip(self) -> list[Region]:
        return self._fast.skip((self._audio.end - FRAME_SIZE) // FRAME_STEP)

    def settle(self, last: bool = False) -> list[Region]:
        """The regions up to `turns_s` ago, as they look by now, seen by more windows."""
        lag = 0 if last else round(self.params.turns_s / FRAME_S)
        return self._slow.decide(max(self._slow.decided, self._fast.decided - lag))

    def review(self, start: int, stop: int) -> list[Region]:
        again = _Decider(self.rolling, self._voice, self.params, max(0, start - _WARM))
        found = again.decide(min(stop, self._fast.decided))
        return [Region(max(r.start, start), r.stop, r.chains) for r in found if r.stop > start]

    @property
    def decided(self) -> int:
        return self._fast.decided

    # ------------------------------------------------------------------ whose it is

    def _gather(self, regions: list[Region], last: bool) -> None:
        for region in regions:
            for chain in region.chains:
                if chain not in self._gathering:
                    self._gathering[chain] = _Gathering(region.start)
                self._gathering[chain].last = region.stop
        for chain in list(self._gathering):
            self._collect(chain, last)

    def _collect(self, chain: int, last: bool) -> None:
        """Frames of a chain that have settled become units, once there are enough of them."""
        own, p = self._gathering[chain], self.params
        over = last or self.decided - own.last >= round(p.ended_s / FRAME_S)
        stop = self.decided - (0 if over else round(p.settled_s / FRAME_S))
        if stop > own.next:
            self._look(chain, own, stop)
            own.next = stop
        while own.alone:
            paused = _paused(own.alone, round(p.first_s / FRAME_S), round(p.pause_s / FRAME_S))
            if paused:
                self._queue(chain, own, paused, clean=True)
                continue
            seconds = sum(b - a for a, b in own.alone) * FRAME_S
            wanted = p.unit_s if own.units else p.first_s
            late = last or self.decided - own.alone[-1][1] >= round(p.ended_s / FRAME_S)
            if seconds >= wanted or (late and seconds >= p.shortest_s):
                taken = _first(own.alone, round(2 * p.unit_s / FRAME_S))
                self._queue(chain, own, taken, clean=True)
            elif late:
                own.alone = []
            else:
                break
        if over:
            if not own.units and sum(b - a for a, b in own.mixed) * FRAME_S >= p.shortest_s:
                self._queue(chain, own, own.mixed, clean=False)
            del self._gathering[chain]

    def _look(self, chain: int, own: _Gathering, stop: int) -> None:
        start = own.next
        trace = self.rolling.trace(chain, start, stop)
        second = self.rolling.how_many(start, stop)[:, 2]
        for other in self.rolling.chains(start, stop):
            if other != chain:
                second = np.maximum(second, self.rolling.trace(other, start, stop))
        nobody = self.rolling.how_many(start - 10, stop + 10)[:, 0]
        cuts = pauses(nobody, reach=10, least=0.05)[10:-10]
        active = (trace > 0.5) & ~cuts
        shortest = round(0.1 / FRAME_S)
        own.alone += _runs(active & (second < self.params.purity), start, shortest)
        own.mixed += _runs(active, start, shortest)

    def _queue(self, chain: int, own: _Gathering, runs: Runs, clean: bool) -> None:
        start, stop = runs[0][0], runs[-1][1]
        rivals = self._rivals(chain, start, stop)
        nothing = np.zeros(0, np.float32)
        self._units.append(Unit(chain, start, stop, nothing, clean, rivals, tuple(runs)))
        own.alone = [(a, b) for a, b in own.alone if a >= stop] if clean else own.alone
        own.units += 1

    def _paused(self, start: int, stop: int) -> bool:
        """Whether nobody speaks for a moment in frames [start, stop)."""
        if stop <= start:
            return False
        nobody = self.rolling.how_many(start, stop)[:, 0]
        return int((nobody > 0.5).sum()) >= round(0.15 / FRAME_S)

    def _rivals(self, chain: int, start: int, stop: int) -> tuple[tuple[int, float], ...]:
        """Chains that are active while this one is, and for which share of it."""
        own = self.rolling.trace(chain, start, stop)
        active = max(int((own > 0.5).sum()), 1)
        found = []
        for other in self.rolling.chains(start, stop):
            both = np.minimum(own, self.rolling.trace(other, start, stop)) > 0.5
            if other != chain and both.any():
                found.append((other, float(both.sum()) / active))
        return tuple(found)

    @property
    def waiting(self) -> int:
        return len(self._units)

    def embed(self) -> None:
        if not self._units:
            return
        unknown = (u for u in self._units if self.tracker.who(u.chain, u.start, u.stop) is None)
        chosen = next(unknown, self._units[0])
        self._units.remove(chosen)
        pieces = []
        for a, b in chosen.runs:
            start = a * FRAME_STEP + HALF_FRAME
            pieces.append(
                self._embedding.features(self._audio.read(start, start + (b - a) * FRAME_STEP))
            )
        features = np.concatenate(pieces)
        if len(features):
            chosen.vector = self._embedding.embed_features(features)
            self.tracker.hear(chosen)

    def hear_apart(self, chain: int, start: int, stop: int, samples: Floats) -> None:
        features = self._embedding.features(samples)
        if len(features):
            vector = self._embedding.embed_features(features)
            rivals = self._rivals(chain, start, stop)
            self.tracker.hear(Unit(chain, start, stop, vector, False, rivals))


def _first(runs: Runs, most: int) -> Runs:
    """The first runs of at most so many frames together, at least one."""
    taken, frames = [runs[0]], runs[0][1] - runs[0][0]
    for a, b in runs[1:]:
        if frames + b - a > most:
            break
        taken.append((a, b))
        frames += b - a
    return taken


def _paused(runs: Runs, least: int, pause: int) -> Runs:
    """The first runs of at least so many frames together that such a pause follows; none: []."""
    frames = 0
    for k, (a, b) in enumerate(runs[:-1]):
        frames += b - a
        if frames >= least and runs[k + 1][0] - b >= pause:
            return runs[: k + 1]
    return []


def _runs(mask: NDArray[np.bool_], offset: int, shortest: int) -> Runs:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(int(a) + offset, int(b) + offset) for a, b in pairs if b - a >= shortest]
