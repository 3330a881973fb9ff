"""Audio in, rows out: the whole path of live, as a function of the samples alone.

Everything happens on a grid of ticks of a tenth of a second of audio, however the audio is cut
into pushes: each tick is listened to for speech (denoised if asked for); every fifth looks at who
talks and hands everybody their audio; the others do one piece of dearer work each, a last word,
a guess at what is being said, or an embedding of a voice, whichever matters most. So pushes
cost about alike, but for last words, and the rows depend on nothing but the audio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Embedding, Partial, Row, Speaker, Utterance, Word
from podtool.engines.diarization_cluster import unit
from podtool.engines.embedding_campplus import CamPlusPlus
from podtool.engines.segmentation_pyannote import FRAME_STEP, PyannoteSegmentation
from podtool.engines.vad_silero import CHUNK, SileroVad
from podtool.live.parting import Parting
from podtool.live.readers import Reader, agreed
from podtool.live.scene import HALF_FRAME, HOP_FRAMES, Region, Ring, Scene, SceneParams
from podtool.live.status import Shed, Talker
from podtool.live.tracker import FRAME_S, TrackerParams, plain
from podtool.live.turns import Labels, Turns
from podtool.live.voice import Saying, Voice, VoiceParams
from podtool.progress import Timings
from podtool.stages.steady import Stream

Samples = NDArray[np.float32]
Floats = NDArray[np.float32]
RATE = 16000
TICKS = 5  # of a hop
TICK = HOP_FRAMES * FRAME_STEP // TICKS  # samples, .10125 s
_FADE = RATE // 100
_YOUNG = RATE  # samples of speech after which a chain is what it is
_HEARD = 0.35  # probability of speech that makes looking worth while


@dataclass(frozen=True, slots=True)
class LiveParams:
    """Settings of live that are nobody else's; times in seconds."""

    language: str = field(default="en", metadata={"help": "Language that is spoken, BCP 47."})
    partials: bool = field(default=True, metadata={"help": "Rows of what is being said."})
    partial_s: float = field(default=0.35, metadata={"help": "New speech for another guess."})
    beam: int = field(default=4, metadata={"help": "Width of the search for the last word."})
    denoise: bool = field(default=False, metadata={"help": "Tell voices apart without the noise."})
    separate: bool = field(default=True, metadata={"help": "Take apart who talks at once."})
    align: bool = field(default=True, metadata={"help": "Times of words by forced alignment."})
    hold_s: float = field(default=1.0, metadata={"help": "A last word waits so long for a name."})
    quiet_s: float = field(default=1.0, metadata={"help": "Silence after which nothing is done."})


class Denoiser(Protocol):
    """A causal stream of one voice; its output is `latency_s` behind."""

    def push(self, block: Samples) -> Samples: ...
    def flush(self) -> Samples: ...


@dataclass(frozen=True, slots=True)
class LiveEngines:
    """What the pipeline listens with; `separator` makes a stream for so many talkers."""

    vad: SileroVad
    segmentation: PyannoteSegmentation
    embedding: CamPlusPlus
    reader: Reader
    denoiser: Callable[[], Denoiser] | None = None
    separator: Callable[[int], Stream] | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """Audio of one person from sample `start` on, 16 kHz."""

    speaker: str
    start: int
    samples: Samples


class Pipeline:
    """One microphone. `push` any number of samples; `flush` at the end, or before a gap."""

    def __init__(
        self,
        engines: LiveEngines,
        params: LiveParams | None = None,
        scene: SceneParams | None = None,
        tracker: TrackerParams | None = None,
        voice: VoiceParams | None = None,
        enrolled: Mapping[str, Floats] | None = None,
        recording: str = "live",
        make_scene: Callable[[Ring], Scene] | None = None,
    ) -> None:
        """`make_scene`: another idea of who talks than the engines' own."""
        self.params = params or LiveParams()
        self.recording = recording
        self.shed = Shed.NOTHING
        self.clock = Timings()
        self.spoken: list[Spoken] = []  # since it was last taken; filled where `keep_spoken`
        self.keep_spoken = False
        self._engines, self._voice_params = engines, voice or VoiceParams()
        self._raw, self._clean = Ring(30 * RATE), Ring(20 * RATE)
        self._denoiser = self._new_denoiser()
        if make_scene is None:
            make_scene = partial(
                Scene,
                segmentation=engines.segmentation,
                embedding=engines.embedding,
                params=scene or SceneParams(),
                tracker=tracker or TrackerParams(),
                enrolled=enrolled,
            )
        self.scene = make_scene(self._clean)
        self._labels = Labels(self.scene.tracker, recording)
        self._turns = Turns(self._labels)
        self._parting = None
        if engines.separator is not None and self.params.separate:
            self._parting = Parting(self._raw, engines.separator)
        self._buffer = np.zeros(0, np.float32)
        self._ticks = 0
        self._vad_state = engines.vad.start()
        self._vad_left = np.zeros(0, np.float32)
        self._quiet = 1e9  # seconds since speech was last heard
        self._silent_since = 0  # sample
        self._voices: dict[int, Voice] = {}
        self._finals: deque[Saying] = deque()
        self._said = 0  # utterances that have an id
        self._now: tuple[int, ...] = ()  # chains that talk

    # ------------------------------------------------------------------ in and out

    @property
    def at_s(self) -> float:
        """Seconds of audio that were taken in."""
        return (self._raw.end + len(self._buffer)) / RATE

    def push(self, samples: Samples) -> list[Row]:
        """(n,) more samples at 16 kHz -> the rows that they bring about."""
        self._buffer = np.concatenate([self._buffer, np.asarray(samples, np.float32)])
        rows: list[Row] = []
        while len(self._buffer) >= TICK:
            block, self._buffer = self._buffer[:TICK], self._buffer[TICK:]
            rows += self._tick(block)
        return rows

    def flush(self) -> list[Row]:
        """Everything that is said by now is over: its rows. More may be pushed after that."""
        rows: list[Row] = []
        self._hear(self._buffer)
        self._buffer = np.zeros(0, np.float32)
        if self._denoiser is not None:
            self._clean.push(self._denoiser.flush())
            self._denoiser = self._new_denoiser()
        rows += self._hop(last=True)
        for voice in self._voices.values():
            voice.end()
        self._collect()
        while self.scene.waiting:
            self._embed()
        while self._finals:
            rows += self._last_word(self._finals.popleft())
        self._voices = {}
        self.scene.rolling.forget()
        rows += self._turns.take(self.scene.settle(last=True), last=True)
        return rows + self._labels.told()

    def end(self) -> list[Row]:
        """`flush`, and who was there in all."""
        return [*self.flush(), *self._everybody()]

    def _everybody(self) -> list[Row]:
        return [
            Speaker(
                self._labels.of(p.number),
                self.recording,
                round(self._turns.seconds.get(p.number, 0.0), 6),
                name=p.name,
                embedding=_embedding(p.total),
            )
            for p in self.scene.tracker.living
        ]

    def rename(self, speaker: str, name: str) -> bool:
        """Whether there is such a person, who has that name from now on."""
        for p in self.scene.tracker.people:
            if f"S{p.number + 1}" == speaker:
                self.scene.tracker.person(p.number).name = name
                return True
        return False

    def news(self) -> list[Row]:
        """Rows for names and labels that changed without audio."""
        return self._labels.told()

    def talkers(self) -> tuple[Talker, ...]:
        """Everybody who was heard, and who talks now."""
        active = {self._who_now(c): c for c in self._now}
        level = 20 * float(
            np.log10(_rms(self._raw.read(self._raw.end - TICK, self._raw.end)) + 1e-9)
        )
        found = []
        for p in self.scene.tracker.living:
            here = p.number in active
            shown = level if here else -120.0
            several = here and len(self._now) > 1
            found.append(Talker(self._labels.of(p.number), p.name, shown, here, several))
        return tuple(found)

    # ------------------------------------------------------------------ the grid

    def _tick(self, block: Samples) -> list[Row]:
        self._hear(block)
        self._ticks += 1
        if self._ticks % TICKS == 0:
            return self._hop()
        return self._work()

    def _hear(self, block: Samples) -> None:
        self._raw.push(block)
        clean = block
        if self._denoiser is not None:
            with self.clock.part("denoise"):
                clean = self._denoiser.push(block)
        self._clean.push(clean)
        with self.clock.part("vad"):
            heard = np.concatenate([self._vad_left, clean])
            whole = len(heard) // CHUNK * CHUNK
            self._vad_left = heard[whole:]
            if whole:
                found, self._vad_state = self._engines.vad.probabilities(
                    heard[:whole], self._vad_state
                )
                self.scene.voiced(found)
                spoken = np.flatnonzero(found > _HEARD)
                since = len(found) - 1 - spoken[-1] if len(spoken) else len(found)
                self._quiet = since * CHUNK / RATE + (0 if len(spoken) else self._quiet)

    def _hop(self, last: bool = False) -> list[Row]:
        busy = any(v.saying is not None for v in self._voices.values())
        with self.clock.part("segmentation"):
            if self._quiet > self.params.quiet_s and not busy and not last:
                regions = self.scene.skip()
            else:
                regions = self.scene.hop(last)
        for region in regions:
            self._hand_out(region)
        self._collect()
        with self.clock.part("turns"):
            rows = self._turns.take(self.scene.settle(), last=False)
            return rows + self._labels.told()

    # ------------------------------------------------------------------ who gets what

    def _hand_out(self, region: Region) -> None:
        start = region.start * FRAME_STEP + HALF_FRAME
        stop = region.stop * FRAME_STEP + HALF_FRAME
        mixture = self._raw.read(start, stop)
        if self._parting is not None:
            self._parting.told(start, stop, region.chains)
        own = self._apart(start, stop, region.chains, mixture)
        for chain, voice in self._voices.items():
            if chain not in region.chains:
                voice.rest(start, None if region.chains else mixture, stop - start)
        margin = round(self._voice_params.margin_s * RATE)
        quiet = not self._now
        lead = self._raw.read(max(self._silent_since, start - margin), start)
        for chain, samples in own.items():
            if chain not in self._voices:
                self._voices[chain] = Voice(chain, self._voice_params)
            voice = self._voices[chain]
            self._inherit(voice, region)
            apart = len(region.chains) > 1
            fade = self._fade(chain, start, apart, voice)
            voice.speak(start, samples, lead if quiet else lead[:0], fade, apart)
        if region.chains:
            self._silent_since = stop
        self._now = region.chains

    def _inherit(self, voice: Voice, region: Region) -> None:
        """Go on with what another chain began a moment ago: at first, windows are not agreed."""
        if voice.saying is not None or len(region.chains) != 1 or len(self._now) != 1:
            return
        other = self._voices.get(self._now[0])
        if other is None or other.saying is None or other.saying.apart:
            return
        if other.saying.speech < _YOUNG:
            voice.saying, other.saying = other.saying, None
            voice.saying.chain, voice.parted = voice.chain, False

    def _apart(
        self, start: int, stop: int, chains: tuple[int, ...], mixture: Samples
    ) -> dict[int, Samples]:
        """The audio of everybody who talks in samples [start, stop)."""
        if len(chains) < 2 or self._parting is None or self.shed >= Shed.SEPARATION:
            return dict.fromkeys(chains, mixture)
        with self.clock.part("separation"):
            return self._parting.voices(start, stop, chains)

    def _fade(self, chain: int, start: int, apart: bool, voice: Voice) -> Samples | None:
        """What the source before has of the first samples, where the source changes."""
        if voice.saying is None or voice.parted == apart:
            voice.parted = apart
            return None
        voice.parted = apart
        if apart:
            return self._raw.read(start, start + _FADE)
        return None if self._parting is None else self._parting.after(chain, start, _FADE)

    def _collect(self) -> None:
        over = self.scene.decided - round(3 / FRAME_S)
        for chain, voice in list(self._voices.items()):
            self._finals += voice.done
            voice.done = []
            if voice.saying is None and voice.last < over * FRAME_STEP:
                del self._voices[chain]

    # ------------------------------------------------------------------ work, a piece a tick

    def _work(self) -> list[Row]:
        """The one piece of work that matters most now."""
        if self.scene.urgent:  # rows wait for names
            self._embed()
            return self._labels.told()
        if self._finals and self._ready(self._finals[0]):
            return self._last_word(self._finals.popleft())
        saying = None if self.scene.waiting > 2 else self._most_to_guess()
        if saying is not None:
            return self._guess(saying)
        self._embed()
        return self._labels.told()

    def _embed(self) -> None:
        with self.clock.part("embedding"):
            self.scene.embed()

    def _ready(self, saying: Saying) -> bool:
        held = (self._raw.end - saying.last) / RATE
        return held > self.params.hold_s or self._who(saying) is not None

    def _most_to_guess(self) -> Saying | None:
        if not self.params.partials or self.shed >= Shed.PARTIALS:
            return None
        least = round(self.params.partial_s * RATE)
        open_now = [v.saying for v in self._voices.values() if v.saying is not None]
        wanted = [s for s in open_now if s.fresh >= least and s.speech >= least]
        return max(wanted, key=lambda s: (s.fresh, -s.chain), default=None)

    def _guess(self, saying: Saying) -> list[Row]:
        with self.clock.part("recognition"):
            words, saying.memory = self._engines.reader.guess(saying.samples, saying.memory)
        saying.guessed = saying.last
        saying.stable = agreed(saying.words, words)
        if words == saying.words or not words:
            return []
        saying.words = words
        row = Partial(
            self._id(saying),
            self.recording,
            round(saying.first / RATE, 6),
            round(saying.last / RATE, 6),
            " ".join(words),
            self._label(saying),
            saying.stable,
        )
        return [*self._labels.told(), row]

    def _last_word(self, saying: Saying) -> list[Row]:
        with self.clock.part("recognition"):
            words = self._engines.reader.read(saying.samples)
        label = self._labels.label(self._who(saying))
        if self.keep_spoken:
            self.spoken.append(Spoken(label, saying.start, saying.samples))
        if not words:
            if saying.id is None:
                return []
            start, end = round(saying.first / RATE, 6), round(saying.last / RATE, 6)
            return [Partial(saying.id, self.recording, start, end, "", label)]
        offset = saying.start / RATE
        placed = tuple(
            Word(
                w.text, round(w.start + offset, 6), round(w.end + offset, 6), w.score,
                w.interpolated,
            )
            for w in words
        )  # fmt: skip
        scores = [w.score for w in placed if w.score is not None]
        row = Utterance(
            self._id(saying),
            self.recording,
            placed[0].start,
            max(placed[-1].end, placed[0].start),
            " ".join(w.text for w in placed),
            label,
            language=self.params.language,
            score=round(sum(scores) / len(scores), 4) if scores else None,
            words=placed,
        )
        told = self._labels.told()
        self._labels.wrote(row.start, label, ((saying.chain, *_frames(saying), not saying.apart),))
        return [*told, row]

    def _id(self, saying: Saying) -> str:
        if saying.id is None:
            self._said += 1
            saying.id = f"u{self._said:04d}"
        return saying.id

    # ------------------------------------------------------------------ names

    def _who(self, saying: Saying) -> int | None:
        return self.scene.tracker.who(saying.chain, *_frames(saying), not saying.apart)

    def _who_now(self, chain: int) -> int | None:
        end = self.scene.decided
        return self.scene.tracker.who(chain, end - round(1 / FRAME_S), end, len(self._now) == 1)

    def _label(self, saying: Saying) -> str | None:
        who = self._who(saying)
        return None if who is None else self._labels.of(who)

    def _new_denoiser(self) -> Denoiser | None:
        make = self._engines.denoiser
        return make() if make is not None and self.params.denoise else None


def _frames(saying: Saying) -> tuple[int, int]:
    start = (saying.first - HALF_FRAME) // FRAME_STEP
    return start, max(start + 1, (saying.last - HALF_FRAME) // FRAME_STEP)


def _embedding(total: Floats) -> Embedding | None:
    return Embedding("campplus", plain(unit(total).tolist())) if total.any() else None


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
