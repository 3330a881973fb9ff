"""What one voice says, cut into utterances: audio of its own, gathered until it pauses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Word
from podtool.dsp import ramp

if TYPE_CHECKING:
    from podtool.engines.beam_search import Work

Samples = NDArray[np.float32]
RATE = 16000
_FADE = RATE // 100
_NEAR = round(0.3 * RATE)  # by which the end of speech may be taken too late
_COVERED = RATE // 20  # after the end of speech, that has to have been heard


@dataclass(frozen=True, slots=True)
class VoiceParams:
    """When an utterance begins and ends; times in seconds."""

    pause_s: float = field(default=0.5, metadata={"help": "silence that ends an utterance"})
    margin_s: float = field(
        default=0.2, metadata={"help": "audio read around it, where nobody talks"}
    )
    breath_s: float = field(default=0.2, metadata={"help": "silence at which a long one may end"})
    long_s: float = field(default=7.0, metadata={"help": "speech after which a breath ends it"})
    longest_s: float = field(default=12.0, metadata={"help": "speech after which it is cut"})
    shortest_s: float = field(default=0.2, metadata={"help": "speech below which it is not read"})


@dataclass(slots=True)
class Hearing:
    """Recognition on its way: of a guess, or of the last word."""

    last: int  # sample at which speech ended, as known when it began
    until: int  # sample at which what it hears ends
    work: Work[Any]
    words: list[Word] | None = None  # once all is read

    def holds(self, last: int) -> bool:
        """Whether it is of an utterance that turns out to end at sample `last`."""
        return self.last - _NEAR <= last <= max(self.last, self.until - _COVERED)


@dataclass(slots=True)
class Saying:
    """An utterance on its way: samples on the recording's clock from `start`, with no gaps."""

    chain: int
    start: int
    first: int  # sample at which speech begins
    last: int  # and ends, so far
    samples: Samples
    speech: int = 0  # samples in which the voice is active
    apart: bool = False  # some of it was separated from other voices
    followed: bool = False  # somebody else talks right after it
    reviewed: bool = False
    id: str | None = None
    words: list[str] = field(default_factory=list)  # guessed last
    stable: int = 0
    memory: Any = None  # of the reader
    guessed: int = 0  # samples that were there when it was guessed last
    guess: Hearing | None = None
    reading: Hearing | None = None

    @property
    def read(self) -> list[Word] | None:
        """The last word, once it is read to the end of what was said."""
        if self.reading is None or not self.reading.holds(self.last):
            return None
        return self.reading.words

    @property
    def stop(self) -> int:
        return self.start + len(self.samples)

    def begin_earlier(self, start: int, samples: Samples) -> None:
        """It turns out to begin at `start`, with samples that reach to where it began."""
        self.samples = np.concatenate([samples, self.samples])
        self.start = self.first = start
        self.speech += len(samples)
        self.reading = None

    def end_earlier(self, last: int, stop: int) -> None:
        """It turns out to end at sample `last`, and what is heard from `stop` on is not its own."""
        self.speech -= self.last - last
        self.last = last
        self.samples = self.samples[: stop - self.start]
        self.reading = None

    @property
    def fresh(self) -> int:
        """Samples of speech that no guess has heard."""
        return self.last - max(self.guessed, self.first)


class Voice:
    """One chain: `speak` and `rest` for every stretch of time, in order; `done` is what is over."""

    def __init__(self, chain: int, params: VoiceParams) -> None:
        self.chain, self.params = chain, params
        self.saying: Saying | None = None
        self.done: list[Saying] = []
        self.parted = False  # whether it was heard apart last
        self.last = 0  # sample at which it was last active

    def speak(
        self, start: int, own: Samples, lead: Samples, fade: Samples | None, apart: bool
    ) -> None:
        """It talks from sample `start` on, in `own`.

        `lead`: what was there just before, should an utterance begin; `fade`: what the other
        source (mixture or separator) has for the first samples, to go over from.
        """
        now = self.saying
        if now is None:
            now = self.saying = Saying(self.chain, start - len(lead), start, start, lead)
        if fade is not None and len(fade) and len(now.samples) > len(lead):
            n = min(len(fade), len(own), _FADE)
            up = ramp(n).astype(np.float32)
            own = own.copy()
            own[:n] = own[:n] * up + fade[:n] * up[::-1]
        now.samples = np.concatenate([now.samples, own])
        now.speech += len(own)
        now.last = self.last = start + len(own)
        now.apart |= apart
        now.followed = False
        if now.speech >= self.params.longest_s * RATE:
            self._cut()

    def rest(self, start: int, ambient: Samples | None, frames: int) -> None:
        """It is silent for `frames` from `start` on; `ambient` where nobody else talks either."""
        now = self.saying
        if now is None:
            return
        quiet = start + frames - now.last
        long = now.speech >= self.params.long_s * RATE
        limit = round((self.params.breath_s if long else self.params.pause_s) * RATE)
        margin = round(self.params.margin_s * RATE)
        room = max(0, now.last + (limit if quiet < limit else margin) - now.stop)
        now.followed |= ambient is None
        piece = (np.zeros(frames, np.float32) if ambient is None else ambient)[:room]
        now.samples = np.concatenate([now.samples, piece])
        if quiet >= limit:
            self.end()

    def end(self) -> None:
        """Whatever is being said is over."""
        now, self.saying = self.saying, None
        if now is None:
            return
        stop = now.last + round(self.params.margin_s * RATE) - now.start
        now.samples = now.samples[:stop]
        if now.speech >= self.params.shortest_s * RATE or now.id is not None:
            self.done.append(now)

    def _cut(self) -> None:
        """Divide what is said at its quietest moment in the last third."""
        now = self.saying
        assert now is not None
        size = RATE // 50
        count = len(now.samples) // size
        power = np.square(now.samples[: count * size].reshape(count, size)).mean(axis=1)
        smooth = np.convolve(power, np.ones(7) / 7, "same")
        low = 2 * count // 3
        at = (low + int(np.argmin(smooth[low : count - 5]))) * size
        rest = Saying(
            self.chain, now.start + at, now.start + at, now.last, now.samples[at:],
            speech=now.last - now.start - at, apart=now.apart,
        )  # fmt: skip
        now.samples, now.last = now.samples[:at], now.start + at
        now.speech -= rest.speech
        self.done.append(now)
        self.saying = rest
