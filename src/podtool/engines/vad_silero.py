"""Speech or not, by Silero VAD 6: one probability for every 32 ms, many of them per call."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.onnx_session import only_file, open_session
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.segments import FrameGrid, Span, fill_gaps

CHUNK = 512
CONTEXT = 64
_PER_CALL = 512

State = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


class SileroVad:
    """Mono 16 kHz audio -> speech probabilities and spans."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="silero",
        stage="vad",
        version="1",
        licence="MIT",
        tier="embedded",
        sample_rate=16000,
        models=("silero-vad",),
        packages=("onnxruntime",),
        install="pip install onnxruntime",
    )
    grid: FrameGrid = FrameGrid(CHUNK / 16000, CHUNK / 16000)
    onset: float = 0.5
    offset: float = 0.35
    longest_gap_s: float = 0.1
    shortest_s: float = 0.1

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        folder = context.model("silero-vad")
        return cls(open_session(only_file(folder, "silero_vad_16k_sequence.onnx"), 1))

    @staticmethod
    def start() -> State:
        """The state before the first sample of a recording: (h, c, last samples)."""
        return (
            np.zeros((1, 1, 128), np.float32),
            np.zeros((1, 1, 128), np.float32),
            np.zeros(CONTEXT, np.float32),
        )

    def probabilities(
        self, samples: NDArray[np.float32], state: State | None = None
    ) -> tuple[NDArray[np.float32], State]:
        """(n,) samples -> one probability for each 512 samples, and the state to go on with.

        To go on, all blocks but the last must be multiples of 512 samples; the last is padded.
        """
        h, c, context = state if state is not None else self.start()
        count = -(-len(samples) // CHUNK)
        found = [np.zeros(0, np.float32)]
        for first in range(0, count, _PER_CALL):
            n = min(_PER_CALL, count - first)
            block = samples[first * CHUNK : (first + n) * CHUNK]
            chunks = np.zeros((n, CHUNK), np.float32)
            chunks.reshape(-1)[: len(block)] = block
            before = np.concatenate([context[None], chunks[:-1, -CONTEXT:]])
            context = chunks[-1, -CONTEXT:].copy()
            feed = {"input": np.concatenate([before, chunks], 1), "h": h, "c": c}
            speech, h, c = self._session.run(["speech_probs", "hn", "cn"], feed)
            found.append(np.asarray(speech, np.float32).reshape(-1))
        return np.concatenate(found), (h, c, context)

    def detect(self, audio: Audio) -> list[Span]:
        """Speech in mono 16 kHz audio, from crossing `onset` until falling under `offset`."""
        speech, _ = self.probabilities(audio.samples[0])
        end = audio.frames / 16000
        spans = self.spans(speech)
        return [Span(s.start, min(s.end, end)) for s in spans if s.start < end]

    def spans(self, speech: NDArray[np.float32]) -> list[Span]:
        """Probabilities -> spans with hysteresis, short gaps closed, blips dropped."""
        active = hysteresis(speech, self.onset, self.offset)
        spans = fill_gaps(self.grid.spans(active), self.longest_gap_s)
        return [s for s in spans if s.duration >= self.shortest_s]


def hysteresis(values: NDArray[np.float32], onset: float, offset: float) -> NDArray[np.bool_]:
    """True from where `values` reach `onset` until they fall under `offset`."""
    state = np.where(values >= onset, 1, np.where(values < offset, 0, -1))
    decided = np.flatnonzero(state >= 0)
    if len(decided) == 0:
        return np.zeros(len(values), bool)
    last = np.searchsorted(decided, np.arange(len(values)), side="right") - 1
    return np.where(last >= 0, state[decided[np.maximum(last, 0)]], 0).astype(bool)
