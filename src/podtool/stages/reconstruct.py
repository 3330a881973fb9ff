"""Takes + original (+ speech stem) -> the episode; whatever lies outside the slots is untouched.

In a slot the original speech goes out and the take comes in: `original - speech + take` where a
speech stem says what the speech is (the background stays), or a stem of that speaker alone (others
who talk at the same time stay, too); `original -> take` where the recording is clean. Both are
crossfaded inside the slot. Every sample is a function of its frame number
alone, so any cutting into blocks gives the same samples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Placement, Take
from podtool.audio import Audio, AudioSource
from podtool.dsp import ramp
from podtool.errors import InputError
from podtool.loudness import k_weighting
from podtool.progress import OnProgress, Progress, ignore
from podtool.resample import at_rate
from podtool.segments import Span
from podtool.stages.null_test import NullMeter as NullMeter
from podtool.stages.null_test import NullTest as NullTest
from podtool.stages.null_test import null_test as null_test

log = logging.getLogger(__name__)

BLOCK_S = 10.0
Samples = NDArray[np.float32]
OpenTake = Callable[[Take], AudioSource]
Frames = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ReconstructParams:
    """Settings of the stage."""

    crossfade_ms: float = field(
        default=12.0, metadata={"help": "Fade between original and take, inside the slot."}
    )
    match_level: bool = field(
        default=True, metadata={"help": "Bring each take to the level of the turn it replaces."}
    )
    max_gain_db: float = field(
        default=18.0, metadata={"help": "Most that matching may raise or lower a take."}
    )
    master: str = field(
        default="none",
        metadata={"help": "Loudness target: none, apple, mono, ebu, spotify or acx."},
    )


@dataclass(frozen=True, slots=True)
class Slot:
    """A take on the recording's frames, with one gain per channel.

    In `parts` the original speech goes out; in `sounding` the take is heard: shorter than the
    parts where the take is, longer where it runs over its slot.
    """

    take: Take
    start: int
    stop: int
    parts: tuple[Frames, ...]
    sounding: tuple[Frames, ...]
    gains: tuple[float, ...]

    @property
    def gain_db(self) -> float:
        """The gain over all channels (power mean)."""
        power = sum(g * g for g in self.gains) / len(self.gains)
        return 10 * math.log10(power) if power > 0 else -120.0


def place(
    takes: Sequence[Take],
    original: AudioSource,
    open_take: OpenTake,
    speech: AudioSource | None = None,
    params: ReconstructParams | None = None,
    voices: Mapping[str, AudioSource] | None = None,
) -> list[Slot]:
    """Where each take goes and how loud: the first of two passes.

    `open_take` gives a take's audio, `speech` is the speech stem, `voices` are stems of speakers by
    label. A take longer than its slot is kept whole. Raises InputError for a take that starts
    outside the recording, or a stem that is not as long as it.
    """
    params = params or ReconstructParams()
    voices = voices or {}
    for stem in [*voices.values(), *([speech] if speech is not None else [])]:
        _check_stem(original, stem)
    rate = original.sample_rate
    slots: list[Slot] = []
    for take in sorted(takes, key=lambda t: (t.start, t.end, t.id)):
        audio = _take_audio(take, open_take, original)
        start = round(take.start * rate)
        if not 0 <= start < original.frames:
            raise InputError(
                f"take {take.id} starts at {take.start:.3f} s, "
                f"outside the recording of {original.frames / rate:.3f} s"
            )
        slot_end = min(round(take.end * rate), original.frames)
        stop = min(max(slot_end, start + audio.frames), original.frames)
        if stop > slot_end:
            log.warning(
                "take %s is %.3f s longer than its slot and is kept whole",
                take.id,
                (stop - slot_end) / rate,
            )
        parts = _parts(start, slot_end, take.keep or (), rate)
        voice = voices.get(take.speaker, speech)
        gains = _gains(audio, parts, start, original, voice, params)
        sounding = _sounding(parts, slot_end, start + audio.frames, original.frames)
        slots.append(Slot(take, start, stop, parts, sounding, gains))
    return slots


def placements(slots: Sequence[Slot], rate: int, params: ReconstructParams) -> list[Placement]:
    """The slots as rows: one for each part that is replaced."""
    rows = []
    for slot in slots:
        for a, b in slot.sounding:
            fade = _fade(b - a, rate, params) / rate
            rows.append(
                Placement(
                    recording=slot.take.recording,
                    start=a / rate,
                    end=b / rate,
                    take=slot.take.id,
                    gain_db=slot.gain_db,
                    fade_in_s=fade,
                    fade_out_s=fade,
                )
            )
    return rows


def render(
    slots: Sequence[Slot],
    original: AudioSource,
    open_take: OpenTake,
    speech: AudioSource | None = None,
    params: ReconstructParams | None = None,
    on_progress: OnProgress = ignore,
    block_s: float = BLOCK_S,
    voices: Mapping[str, AudioSource] | None = None,
) -> Iterator[Audio]:
    """Blocks of the result, `original.frames` in all; untouched frames keep their bits.

    Of a speaker in `voices` that stem goes out, of others `speech`. Give a generator to
    `podtool.loudness.master` for a loudness target.
    """
    params = params or ReconstructParams()
    rate, frames = original.sample_rate, original.frames
    removed = _removed(slots, voices or {}, speech)
    size = max(1, round(block_s * rate))
    opened: dict[str, AudioSource] = {}
    for start in range(0, frames, size):
        stop = min(start + size, frames)
        block = original.read(start, stop)
        here = [s for s in slots if s.start < stop and s.stop > start]
        takes = {s.take.id: s.take for s in here}
        opened = {
            i: opened[i] if i in opened else _take_audio(take, open_take, original)
            for i, take in takes.items()
        }
        if here:
            out = block.samples.astype(np.float64)
            touched = np.zeros(block.frames, np.bool_)
            for voice, parts in removed:
                touched |= _remove(out, block.samples, parts, start, stop, voice, rate, params)
            for slot in here:
                touched |= _add(out, slot, opened[slot.take.id], rate, start, stop, params)
            block = Audio(_settle(out, block.samples, touched), rate)
        yield block
        on_progress(Progress("reconstruct", stop / rate, frames / rate))


def _removed(
    slots: Sequence[Slot], voices: Mapping[str, AudioSource], speech: AudioSource | None
) -> list[tuple[AudioSource | None, list[Frames]]]:
    """What goes out where: each stem of a speaker in their slots, the speech in all others."""
    labels = sorted({s.take.speaker for s in slots} & set(voices))
    own = [
        (voices[label], _merged(p for s in slots if s.take.speaker == label for p in s.parts))
        for label in labels
    ]
    return [
        *own,
        (speech, _merged(p for s in slots if s.take.speaker not in voices for p in s.parts)),
    ]


def _settle(out: NDArray[np.float64], original: Samples, touched: NDArray[np.bool_]) -> Samples:
    """float32 where touched (within full scale, where the original was), the original elsewhere."""
    limit = np.maximum(1.0, np.abs(original))
    return np.where(touched, np.clip(out, -limit, limit).astype(np.float32), original)


def _check_stem(original: AudioSource, speech: AudioSource) -> None:
    if speech.frames != original.frames or speech.sample_rate != original.sample_rate:
        raise InputError(
            f"the speech stem has {speech.frames} frames at {speech.sample_rate} Hz, "
            f"the recording {original.frames} at {original.sample_rate} Hz",
            "Separate this very recording again.",
        )
    if speech.channels not in (1, original.channels):
        raise InputError("the speech stem and the recording differ in their channels")


def _take_audio(take: Take, open_take: OpenTake, original: AudioSource) -> AudioSource:
    audio = at_rate(open_take(take), original.sample_rate, mono=False)
    if audio.channels not in (1, original.channels):
        return at_rate(audio, original.sample_rate, mono=True)
    return audio


def _parts(
    start: int, stop: int, keep: Sequence[tuple[float, float]], rate: int
) -> tuple[Frames, ...]:
    """The slot without what stays original."""
    parts: list[Frames] = []
    at = start
    for a, b in _merged((round(k[0] * rate), round(k[1] * rate)) for k in keep):
        if a >= stop or b <= start:
            continue
        if a > at:
            parts.append((at, a))
        at = max(at, b)
    if at < stop:
        parts.append((at, stop))
    return tuple(parts)


def _sounding(
    parts: Sequence[Frames], slot_end: int, take_end: int, frames: int
) -> tuple[Frames, ...]:
    """The parts up to the end of the take; what of it runs over the slot follows its last part."""
    heard = [(a, min(b, take_end)) for a, b in parts if a < take_end]
    end = min(take_end, frames)
    if end > slot_end:
        if heard and heard[-1][1] == slot_end:
            heard[-1] = (heard[-1][0], end)
        else:
            heard.append((slot_end, end))
    return tuple(heard)


def _merged(spans: Iterable[Frames]) -> list[Frames]:
    """Sorted, disjoint; spans that touch become one."""
    merged: list[Frames] = []
    for a, b in sorted(s for s in spans if s[1] > s[0]):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], b))
        else:
            merged.append((a, b))
    return merged


def _fade(length: int, rate: int, params: ReconstructParams) -> int:
    return min(round(params.crossfade_ms * rate / 1000), length // 2)


def _weights(
    part: Frames, start: int, stop: int, fade: int
) -> tuple[int, int, NDArray[np.float64]]:
    """(first, last, weights) of a part within [start, stop): 1 inside, ramps at its two ends."""
    first, last = max(part[0], start), min(part[1], stop)
    weights = np.ones(max(0, last - first))
    if fade and len(weights):
        up = ramp(fade)
        rise = min(max(0, part[0] + fade - first), len(weights))
        if rise:
            offset = first - part[0]
            weights[:rise] *= up[offset : offset + rise]
        begin = max(first, part[1] - fade)
        if begin < last:
            offset = begin - (part[1] - fade)
            weights[begin - first :] *= up[::-1][offset : offset + last - begin]
    return first, last, weights


def _remove(
    out: NDArray[np.float64],
    original: Samples,
    removed: Sequence[Frames],
    start: int,
    stop: int,
    speech: AudioSource | None,
    rate: int,
    params: ReconstructParams,
) -> NDArray[np.bool_]:
    """Take the replaced speech out of `out`, in place; which frames that touched."""
    touched = np.zeros(out.shape[1], np.bool_)
    for part in removed:
        if part[0] >= stop or part[1] <= start:
            continue
        first, last, weights = _weights(part, start, stop, _fade(part[1] - part[0], rate, params))
        here = slice(first - start, last - start)
        voice = original[:, here] if speech is None else speech.read(first, last).samples
        out[:, here] -= weights * voice
        touched[here] = True
    return touched


def _add(
    out: NDArray[np.float64],
    slot: Slot,
    audio: AudioSource,
    rate: int,
    start: int,
    stop: int,
    params: ReconstructParams,
) -> NDArray[np.bool_]:
    """Put a take into `out`, in place; which frames that touched."""
    touched = np.zeros(out.shape[1], np.bool_)
    gains = np.array(slot.gains)[:, None]
    for part in slot.sounding:
        if part[0] >= stop or part[1] <= start:
            continue
        first, last, weights = _weights(part, start, stop, _fade(part[1] - part[0], rate, params))
        piece = audio.read(first - slot.start, last - slot.start).samples
        out[:, first - start : last - start] += gains * (weights * piece)
        touched[first - start : last - start] = True
    return touched


def _gains(
    audio: AudioSource,
    parts: Sequence[Frames],
    start: int,
    original: AudioSource,
    speech: AudioSource | None,
    params: ReconstructParams,
) -> tuple[float, ...]:
    """One gain per channel of the recording: the level, and for a mono take the place, of the turn.

    Levels are K-weighted means over the frames in which somebody is heard.
    """
    channels = original.channels
    if not params.match_level or not parts:
        return (1.0,) * channels
    voice = original if speech is None else speech
    shifted = [(max(0, a - start), min(b - start, audio.frames)) for a, b in parts]
    before = active_power(voice, parts)
    after = active_power(audio, [p for p in shifted if p[1] > p[0]])
    if before.max(initial=0.0) <= 0 or after.max(initial=0.0) <= 0:
        return (1.0,) * channels
    most = 10 ** (params.max_gain_db / 20)
    level = math.sqrt(float(before.mean()) / float(after.mean()))
    level = min(max(level, 1 / most), most)
    if audio.channels == channels or voice.channels == 1:
        return (level,) * channels
    share = np.sqrt(before / before.mean())
    return tuple(float(level * s) for s in share)


def active_power(source: AudioSource, parts: Sequence[Frames]) -> NDArray[np.float64]:
    """(channels,) K-weighted mean power over the 20 ms frames within 25 dB of the loudest ones."""
    from scipy.signal import sosfilt

    step = max(1, source.sample_rate // 50)
    sections = k_weighting(source.sample_rate)
    collected: list[NDArray[np.float64]] = []
    for a, b in parts:
        state = np.zeros((len(sections), source.channels, 2))
        for at in range(a, b, step * 500):
            block = source.read(at, min(at + step * 500, b)).samples.astype(np.float64)
            if block.shape[1] == 0:
                continue
            filtered, state = sosfilt(sections, block, axis=1, zi=state)
            whole = filtered.shape[1] // step * step
            if whole == 0:
                collected.append(np.mean(filtered**2, axis=1)[:, None])
            else:
                cut = filtered[:, :whole].reshape(source.channels, -1, step)
                collected.append(np.mean(cut**2, axis=2))
    if not collected:
        return np.zeros(source.channels)
    power = np.concatenate(collected, axis=1)
    total = power.mean(axis=0)
    heard = total >= max(np.quantile(total, 0.95) * 10**-2.5, 1e-12)
    if not heard.any():
        return np.zeros(source.channels)
    return np.asarray(power[:, heard].mean(axis=1))


def changed_spans(slots: Sequence[Slot], rate: int) -> list[Span]:
    """The frames that a render may change, as disjoint spans of seconds, for `null_test`.

    Kept parts are not among them: they have to be the original's.
    """
    parts = [part for slot in slots for part in (*slot.parts, *slot.sounding)]
    return [Span(a / rate, b / rate) for a, b in _merged(parts)]
