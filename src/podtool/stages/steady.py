"""Streamed talkers that stay who they are: outputs of a causal separator, routed by their voices.

A recurrent separator keeps a voice on its output while it remembers it: seconds, not hours. So
what each output said lately is embedded where it is alone, compared with the voice that the place
has had so far, and outputs that changed places are routed back, crossfaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.dsp import ramp
from podtool.stages.assignment import loud_parts

if TYPE_CHECKING:
    from podtool.engines.protocols import EmbeddingEngine

Samples = NDArray[np.float32]
RATE = 16000


class Stream(Protocol):
    """A causal separator, block by block; see `TalkerStream`."""

    count: int

    def push(self, block: Samples) -> Samples: ...

    def flush(self) -> Samples: ...


@dataclass(frozen=True, slots=True)
class SteadyParams:
    """Settings; times in seconds, levels in dB."""

    every_s: float = field(default=0.5, metadata={"help": "How often the routing is looked at."})
    heard_s: float = field(default=3.0, metadata={"help": "What a voice is judged by."})
    least_s: float = field(default=1.0, metadata={"help": "Less speech than this says nothing."})
    margin: float = field(default=0.2, metadata={"help": "Cosines gained before places change."})
    memory: float = field(default=0.95, metadata={"help": "Of a place's voice, per look."})
    crossfade_ms: float = field(default=20.0, metadata={"help": "From one routing to the next."})


class SteadyTalkers:
    """`push` like the stream's, with rows that keep their voice however long it runs."""

    def __init__(
        self, stream: Stream, embedding: EmbeddingEngine, params: SteadyParams | None = None
    ) -> None:
        self.stream, self.params = stream, params or SteadyParams()
        self.route: list[int] = []  # of each place, the output that it gets
        self.voices: dict[int, NDArray[np.float32]] = {}  # of each place
        self._embedding = embedding
        self._recent: Samples | None = None  # raw outputs of the last `heard_s`
        self._since = 0
        self._wanted: tuple[int, ...] | None = None  # a routing that has won once

    def push(self, block: Samples) -> Samples:
        """(n,) samples -> (talkers, m) that are complete by now."""
        return self._routed(self.stream.push(block))

    def flush(self) -> Samples:
        """What is left after the last block."""
        return self._routed(self.stream.flush())

    def _routed(self, outputs: Samples) -> Samples:
        if not self.route:
            self.route = list(range(len(outputs)))
        if outputs.shape[1] == 0:
            return outputs
        self._remember(outputs)
        before = list(self.route)
        self._since += outputs.shape[1]
        if self._since >= self.params.every_s * RATE:
            self._since = 0
            self._look()
        after = outputs[self.route]
        if before == self.route:
            return after
        length = min(outputs.shape[1], round(self.params.crossfade_ms / 1000 * RATE))
        up = ramp(length).astype(np.float32)
        after[:, :length] = after[:, :length] * up + outputs[before][:, :length] * up[::-1]
        return after

    def _remember(self, outputs: Samples) -> None:
        keep = round(self.params.heard_s * RATE)
        known = outputs if self._recent is None else np.concatenate([self._recent, outputs], 1)
        self._recent = known[:, -keep:]

    def _look(self) -> None:
        """Embed what was said lately, route, and let the places' voices follow."""
        said = self._said()
        if not said:
            return
        best = self._best(said)
        gain = self._likeness(said, best) - self._likeness(said, self.route)
        if gain > self.params.margin:
            if self._wanted == tuple(best):  # twice in a row: not a cough
                self.route, self._wanted = best, None
            else:
                self._wanted = tuple(best)
                return
        else:
            self._wanted = None
        for place, output in enumerate(self.route):
            if output not in said:
                continue
            old = self.voices.get(place)
            memory = 0.0 if old is None else self.params.memory
            mixed = memory * (said[output] if old is None else old) + (1 - memory) * said[output]
            self.voices[place] = np.asarray(mixed / np.linalg.norm(mixed), np.float32)

    def _said(self) -> dict[int, NDArray[np.float32]]:
        """Output -> embedding, of those that spoke enough while no other was louder."""
        assert self._recent is not None
        size = RATE // 50
        cut = self._recent[:, self._recent.shape[1] % size :]
        frames = cut.reshape(len(cut), -1, size)
        power = np.square(frames, dtype=np.float64).mean(axis=2)
        leads = power.argmax(axis=0)
        found = {}
        for k in range(min(self.stream.count, len(cut))):
            own = loud_parts(frames[k][leads == k].reshape(-1), RATE)
            if len(own) >= self.params.least_s * RATE:
                found[k] = self._embedding.embed(Audio(own[None], RATE))
        return found

    def _best(self, said: dict[int, NDArray[np.float32]]) -> list[int]:
        orders = (list(o) for o in permutations(range(len(self.route))))
        return max(orders, key=lambda o: (self._likeness(said, o), o == self.route))

    def _likeness(self, said: dict[int, NDArray[np.float32]], route: Sequence[int]) -> float:
        """Summed cosines of what the outputs said with the voices of their places."""
        return sum(
            float(said[output] @ self.voices[place])
            for place, output in enumerate(route)
            if output in said and place in self.voices
        )
