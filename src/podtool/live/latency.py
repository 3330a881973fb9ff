"""How long people wait: from the end of a word to the first partial with it, and to the final."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from podtool.artifacts import Partial, Utterance
from podtool.text import normalise

LATELY = 600  # waits that are remembered for the figures of the moment
OPEN = 100  # utterances that wait for their last word; some never get one


@dataclass(slots=True)
class Latencies:
    """Seconds on the clock of the audio as it arrives."""

    words: list[float] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)
    _lately: deque[float] = field(default_factory=lambda: deque(maxlen=LATELY))
    _shown: dict[str, list[tuple[float, list[str]]]] = field(default_factory=dict)

    def partial(self, row: Partial, now: float) -> None:
        """A partial was given out at `now`, in seconds of audio that had arrived by then."""
        self._shown.setdefault(row.id, []).append((now, normalise(row.text).split()))
        if len(self._shown) > OPEN:
            del self._shown[next(iter(self._shown))]

    def final(self, row: Utterance, now: float) -> None:
        """The last word on an utterance, by which its partials are judged."""
        self.finals.append(now - row.end)
        shown = self._shown.pop(row.id, [])
        before = 0
        for word in row.words or ():
            tokens = normalise(word.text).split()
            if not tokens:
                continue
            at = before + len(tokens)
            when = next((t for t, words in shown if words[before:at] == tokens), now)
            before = at
            self.words.append(when - word.end)
            self._lately.append(when - word.end)
        if len(self.words) > 200_000:
            del self.words[:100_000]
            del self.finals[: len(self.finals) // 2]

    def now(self) -> tuple[float, float] | None:
        """p50 and p95 of the last words."""
        if not self._lately:
            return None
        p50, p95 = np.percentile(np.array(self._lately), (50, 95))
        return float(p50), float(p95)
