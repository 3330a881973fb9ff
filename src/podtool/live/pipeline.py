"""Audio in, rows out: the whole path of live, as a function of the samples alone.

Everything happens on a grid of ticks of a tenth of a second of audio, however the audio is cut
into pushes: each tick is listened to for speech (denoised if asked for); every fifth looks at who
talks and hands everybody their audio; the others do some of the dearer work each, last words,
guesses at what is being said, embeddings of voices, whichever matters most, in pieces whose cost is
known beforehand. So pushes cost about alike, and the rows depend on nothing but the audio.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Embedding, Partial, Row, Speaker, Utterance, Word
from podtool.engines.beam_search import Work
from podtool.engines.diarization_cluster import unit
from podtool.engines.embedding_campplus import CamPlusPlus
from podtool.engines.segmentation_pyannote import FRAME_STEP, PyannoteSegmentation
from podtool.engines.vad_silero import CHUNK, SileroVad
from podtool.live.parting import Careful, Parting, Stream, Talk
from podtool.live.readers import Reader, agreed
from podtool.live.scene import HALF_FRAME, HOP_FRAMES, Region, Ring, RoomScene, Scene, SceneParams
from podtool.live.status import Shed, Talker
from podtool.live.tracker import FRAME_S, TrackerParams, plain
from podtool.live.turns import Labels, Piece, Turns
from podtool.live.voice import Hearing, Saying, Voice, VoiceParams
from podtool.live.whose import by_person
from podtool.progress import Timings

Samples = NDArray[np.float32]
Floats = NDArray[np.float32]
RATE = 16000
TICKS = 5  # of a hop
TICK = HOP_FRAMES * FRAME_STEP // TICKS  # samples, .10125 s
_FADE = RATE // 100
_YOUNG = 2 * RATE  # samples of speech after which a chain is what it is
_HEARD = 0.35  # probability of speech that makes looking worth while
_WORK_MS = 40.0  # of dearer work in a tick, of which the last piece may be longer
_SOON_MS = 55.0  # the same, where a last word is waited for while somebody talks
_HURRY_MS = 80.0  # the same, where it is late, or nobody talks
_LATE = round(1.0 * RATE)
_EMBEDDING_MS = 18.0
_BESIDE = 120  # frames around an utterance that tell which voice is whose
_VOICE = 3 * RATE  # of a voice apart, that is embedded at once
_LEAST_VOICE = round(0.8 * RATE)
_BRIEF = round(0.4 * RATE)  # what is briefer is read only if it is clear
_BRIEF_SURE = 0.6
_SEEMS_OVER_S = 0.25  # silence after which the last word is read in advance
_LITTLE_MS = 1.0  # of what costs nothing that is worth telling


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
    change_s: float = field(
        default=0.9, metadata={"help": "Where somebody else goes on, a last word waits so long."}
    )
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
    careful: Careful | None = None  # a separator that hears what follows


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
            self.scene: Scene = RoomScene(
                self._clean,
                engines.segmentation,
                engines.embedding,
                scene or SceneParams(),
                tracker or TrackerParams(),
                enrolled,
            )
        else:
            self.scene = make_scene(self._clean)
        self._labels = Labels(self.scene.tracker, recording)
        self._turns = Turns(self._labels)
        self._parting = None
        if engines.separator is not None and self.params.separate:
            self._parting = Parting(self._raw, engines.separator, engines.careful)
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
        for saying in self._finals:
            self._review(saying, wait=False)
        while self._finals:
            self._read(self._finals[0], 1e9)
            rows += self._last_word(self._finals.popleft())
        self._voices = {}
        self.scene.forget()
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
        self._end_early()
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
        return rows + self._labels.told() + self._last_words()

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

    def _end_early(self) -> None:
        """End what was said last where a pause is long enough, before the hop that tells it."""
        if self._now or self._quiet < self._voice_params.pause_s:
            return
        for voice in self._voices.values():
            if voice.saying is not None and voice.saying.stop > voice.saying.last:
                voice.end()
        self._collect()

    def _collect(self) -> None:
        over = self.scene.decided - round(3 / FRAME_S)
        for chain, voice in list(self._voices.items()):
            self._finals += voice.done
            voice.done = []
            if voice.saying is None and voice.last < over * FRAME_STEP:
                del self._voices[chain]

    # ------------------------------------------------------------------ work, some in a tick

    def _work(self) -> list[Row]:
        """What matters most now, as much as a tick holds."""
        rows: list[Row] = []
        for saying in self._finals:
            self._review(saying)
        left = self._time()
        while left > 0:
            cost, found = self._piece(left)
            rows += found
            if cost == 0:
                break
            left -= cost
        return rows + self._last_words()

    def _time(self) -> float:
        """Milliseconds of work that this tick holds."""
        unread = next((s for s in self._finals if s.read is None), None)
        if unread is None:
            return _WORK_MS
        late = self._raw.end - unread.last > _LATE
        return _HURRY_MS if late or not self._now else _SOON_MS

    def _piece(self, left: float) -> tuple[float, list[Row]]:
        """One thing, of as much as is left; what it cost, nothing if there is none."""
        if self.scene.waiting:  # it is little work, and everybody's name hangs on it
            return self._embed(), self._labels.told()
        saying = next((s for s in self._finals if s.read is None), None)
        if saying is not None:
            return self._read(saying, left), []
        saying = self._paused()
        if saying is not None:
            return self._read_ahead(saying, left)
        saying = self._most_to_guess()
        return (0.0, []) if saying is None else self._guess(saying, left)

    def _embed(self) -> float:
        with self.clock.part("embedding"):
            self.scene.embed()
        return _EMBEDDING_MS

    def _most_to_guess(self) -> Saying | None:
        if not self.params.partials or self.shed >= Shed.PARTIALS:
            return None
        open_now = [v.saying for v in self._voices.values() if v.saying is not None]
        begun = next((s for s in open_now if s.guess is not None), None)
        if begun is not None:
            return begun
        least = round(self.params.partial_s * RATE)
        wanted = [s for s in open_now if s.fresh >= least and s.speech >= least]
        return max(wanted, key=lambda s: (s.fresh, -s.chain), default=None)

    def _guess(self, saying: Saying, left: float) -> tuple[float, list[Row]]:
        if saying.guess is None:
            work = self._engines.reader.guess(saying.samples, saying.memory)
            saying.guess = Hearing(saying.last, saying.stop, work)
        cost, found = self._go_on(saying.guess, left)
        if found is None:
            return cost, []
        words, saying.memory = found
        last, saying.guess = saying.guess.last, None
        return cost, self._guessed(saying, words, last)

    def _guessed(self, saying: Saying, words: list[str], last: int) -> list[Row]:
        """What is being said, up to sample `last`."""
        saying.guessed = last
        saying.stable = agreed(saying.words, words)
        if words == saying.words or not words:
            return []
        saying.words = words
        row = Partial(
            self._id(saying),
            self.recording,
            round(saying.first / RATE, 6),
            round(last / RATE, 6),
            " ".join(words),
            self._label(saying),
            saying.stable,
        )
        return [*self._labels.told(), row]

    def _go_on(self, hearing: Hearing, left: float) -> tuple[float, Any]:
        """Pieces of recognition for as long as there is time: their cost, and the result if any."""
        cost = 0.0
        with self.clock.part("recognition"):
            while cost < left:
                try:
                    cost += next(hearing.work)
                except StopIteration as stop:
                    return max(cost, _LITTLE_MS), stop.value
        return cost, None

    def _read_ahead(self, saying: Saying, left: float) -> tuple[float, list[Row]]:
        """Go on with what would be the last word; until that is sure, it is the best guess."""
        cost, words = self._go_on_reading(saying, left)
        if not words or not self.params.partials:
            return cost, []
        saying.guess = None
        return cost, self._guessed(saying, [w.text for w in words], saying.last)

    def _paused(self) -> Saying | None:
        """Somebody who may have finished, and whose last word can be read before that is sure."""
        if self.shed >= Shed.PARTIALS:
            return None
        margin = round(self._voice_params.margin_s * RATE)
        for voice in self._voices.values():
            now = voice.saying
            if now is None or now.apart:
                continue  # to take voices apart in vain would be dear
            if now.stop > now.last and self._raw.end >= now.last + margin:
                self._begin_reading(now, now.last + margin)
            elif not self._overheard(now):
                continue
            if now.reading is not None and now.reading.words is None:
                return now
        return None

    def _overheard(self, saying: Saying) -> bool:
        """Whether who talks alone is silent by now, as is heard before it is known who talked.

        Then the last word is read from what was heard, ahead of what was handed out.
        """
        if self._now != (saying.chain,) or self._quiet < _SEEMS_OVER_S:
            return False
        last = self._raw.end - round(self._quiet * RATE)
        begun = saying.reading
        if begun is None or abs(begun.last - last) > 2 * CHUNK:
            until = last + round(self._voice_params.margin_s * RATE)
            saying.reading = Hearing(last, until, self._reading(saying, until))
        return True

    def _review(self, saying: Saying, wait: bool = True) -> None:
        """Give the end of it to somebody else, who turns out to have begun earlier.

        It takes a while until that can be known.
        """
        if not saying.followed or saying.reviewed:
            return
        if wait and self._raw.end - saying.last < self.params.change_s * RATE:
            return
        saying.reviewed = True
        if saying.apart:
            return
        regions = [r for r in self.scene.review(*_frames(saying)) if r.chains]
        own = max((r.stop for r in regions if saying.chain in r.chains), default=0)
        rest = [r for r in regions if r.start >= own]
        if not rest or len({r.chains for r in rest}) > 1 or len(rest[0].chains) > 1:
            return
        chain, start = rest[0].chains[0], rest[0].start * FRAME_STEP + HALF_FRAME
        now = self._voices[chain].saying if chain in self._voices else None
        for heir in (*self._finals, *([now] if now is not None else [])):
            near = heir.start - saying.last < RATE // 2
            if heir.chain == chain and start < heir.start and near and not heir.apart:
                heir.begin_earlier(start, self._raw.read(start, heir.start))
                last = own * FRAME_STEP + HALF_FRAME if own else saying.first
                saying.end_earlier(last, start)
                return

    def _read(self, saying: Saying, left: float) -> float:
        """Go on with the last word of what is over."""
        self._begin_reading(saying, saying.stop)
        return self._go_on_reading(saying, left)[0]

    def _begin_reading(self, saying: Saying, until: int) -> None:
        """Begin with the last word as if nothing more were said, unless that is begun."""
        if saying.reading is None or not saying.reading.holds(saying.last):
            saying.reading = Hearing(saying.last, until, self._reading(saying, until))

    def _go_on_reading(self, saying: Saying, left: float) -> tuple[float, list[Word] | None]:
        """What it cost, and the words if that was all of it."""
        assert saying.reading is not None
        cost, words = self._go_on(saying.reading, left)
        if words is not None:
            saying.reading.words = words
        return cost, words

    def _reading(self, saying: Saying, until: int) -> Work[list[Word]]:
        """The last word on what is said by sample `until`, where others talk meanwhile apart."""
        if saying.apart and self._parting is not None and self.shed < Shed.SEPARATION:
            first, last = _frames(saying)
            talk = [
                (r.start * FRAME_STEP + HALF_FRAME, r.stop * FRAME_STEP + HALF_FRAME, r.chains)
                for r in self.scene.review(max(0, first - _BESIDE), last + _BESIDE)
            ]
            own = yield from self._parting.again(talk, saying.chain, saying.start, until)
            if len(own):
                saying.samples = np.concatenate([own, saying.samples[len(own) :]])
                yield from self._voice_apart(saying, talk)
        samples = saying.samples[: until - saying.start]
        if saying.stop < until:
            samples = np.concatenate([samples, self._raw.read(saying.stop, until)])
        return (yield from self._engines.reader.read(samples))

    def _voice_apart(self, saying: Saying, talk: Sequence[Talk]) -> Work[None]:
        """Tell the scene how somebody sounds who talks while others do, apart from them."""
        pieces: list[list[Talk]] = [[]]
        for a, b, who in talk:
            if saying.chain in who and b > saying.first and a < saying.last:
                piece = max(a, saying.first), min(b, saying.last), who
                if pieces[-1] and piece[1] - pieces[-1][0][0] > _VOICE:
                    pieces.append([])
                pieces[-1].append(piece)
        for part in pieces:
            own = [saying.samples[a - saying.start : b - saying.start] for a, b, _ in part]
            if sum(map(len, own)) >= _LEAST_VOICE and any(len(who) > 1 for _, _, who in part):
                start, stop = _frame(part[0][0]), _frame(part[-1][1])
                self.scene.hear_apart(saying.chain, start, stop, np.concatenate(own))
                yield _EMBEDDING_MS

    def _last_words(self) -> list[Row]:
        """Rows of the utterances that are over, read, and somebody's."""
        rows: list[Row] = []
        while self._finals and self._ready(self._finals[0]):
            rows += self._last_word(self._finals.popleft())
        return rows

    def _ready(self, saying: Saying) -> bool:
        if saying.read is None or (saying.followed and not saying.reviewed):
            return False
        held = (self._raw.end - saying.last) / RATE
        return held > self.params.hold_s or self._who(saying) is not None

    def _last_word(self, saying: Saying) -> list[Row]:
        words = saying.read
        if words and saying.last - saying.first < _BRIEF and _sure(words) < _BRIEF_SURE:
            words = []
        if not words:
            self._keep(self._labels.label(self._who(saying)), saying, saying.start, saying.stop)
            if saying.id is None:
                return []
            start, end = round(saying.first / RATE, 6), round(saying.last / RATE, 6)
            return [Partial(saying.id, self.recording, start, end, "", self._label(saying))]
        offset = saying.start / RATE
        placed = [
            Word(
                w.text, round(w.start + offset, 6), round(w.end + offset, 6), w.score,
                w.interpolated,
            )
            for w in words
        ]  # fmt: skip
        rows = self._labels.told()
        parts = self._by_person(saying, placed)
        begins = [round(own[0].start * RATE) for _, own in parts]
        bounds = [saying.start, *begins[1:], saying.stop]
        for k, (piece, own) in enumerate(parts):
            label = self._labels.label(self.scene.tracker.who(*piece))
            self._keep(label, saying, bounds[k], bounds[k + 1])
            self._labels.wrote(own[0].start, label, (piece,))
            rows.append(self._utterance(self._id(saying if k == 0 else None), label, own))
        return rows

    def _keep(self, label: str, saying: Saying, start: int, stop: int) -> None:
        if self.keep_spoken:
            samples = saying.samples[start - saying.start : stop - saying.start]
            self.spoken.append(Spoken(label, start, samples))

    def _utterance(self, name: str, label: str, words: Sequence[Word]) -> Utterance:
        scores = [w.score for w in words if w.score is not None]
        return Utterance(
            name,
            self.recording,
            words[0].start,
            max(words[-1].end, words[0].start),
            " ".join(w.text for w in words),
            label,
            language=self.params.language,
            score=round(sum(scores) / len(scores), 4) if scores else None,
            words=tuple(words),
        )

    def _by_person(self, saying: Saying, words: Sequence[Word]) -> list[tuple[Piece, list[Word]]]:
        """The words, apart where somebody else turns out to have taken over, and where from."""
        start, stop = _frames(saying)
        whole = (saying.chain, start, stop, not saying.apart)
        regions = self.scene.review(start, stop)
        chains: list[int] = []
        people: list[Hashable | None] = []
        for word in words:
            a, b = _around([word])
            here = next((r for r in regions if r.start <= (a + b) // 2 < r.stop), None)
            alone = here is not None and len(here.chains) == 1
            other = here.chains[0] if here is not None and alone and not saying.apart else None
            chains.append(saying.chain if other is None else other)
            if here is None or not here.chains:
                people.append(None)
            elif other is not None and self.scene.tracker.who(other, a, b) is None:
                people.append(("chain", other))  # whose voice is not known yet
            else:
                people.append(self.scene.tracker.who(chains[-1], a, b, alone))
        parts = by_person(words, people)
        if len(parts) < 2:
            return [(whole, list(words))]
        found: list[tuple[Piece, list[Word]]] = []
        at = 0
        for _, own in parts:
            chain = Counter(chains[at : at + len(own)]).most_common(1)[0][0]
            found.append(((chain, *_around(own), not saying.apart), own))
            at += len(own)
        return found

    def _id(self, saying: Saying | None) -> str:
        if saying is not None and saying.id is not None:
            return saying.id
        self._said += 1
        found = f"u{self._said:04d}"
        if saying is not None:
            saying.id = found
        return found

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


def _frame(sample: int) -> int:
    return (sample - HALF_FRAME) // FRAME_STEP


def _frames(saying: Saying) -> tuple[int, int]:
    start = _frame(saying.first)
    return start, max(start + 1, _frame(saying.last))


def _sure(words: Sequence[Word]) -> float:
    return float(np.mean([1.0 if w.score is None else w.score for w in words]))


def _around(words: Sequence[Word]) -> tuple[int, int]:
    """The frames that stand for the time of words."""
    start, stop = (
        (round(s * RATE) - HALF_FRAME) // FRAME_STEP for s in (words[0].start, words[-1].end)
    )
    return start, max(stop, start + 1)


def _embedding(total: Floats) -> Embedding | None:
    return Embedding("campplus", plain(unit(total).tolist())) if total.any() else None


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
