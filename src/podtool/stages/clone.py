"""Enrolment: the best clips of one person, and the voice that is made of them.

Clips are cut at pauses from where the person speaks alone, measured, and chosen best first. A
reference that holds two people, music, or too little speech is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import EnrolmentClip, Turn
from podtool.audio import Audio, AudioSource
from podtool.engines.world_profile import SpeechProfile
from podtool.errors import InputError
from podtool.progress import OnProgress, Progress, ignore
from podtool.resample import resample, to_mono
from podtool.segments import Span, subtract, total, union
from podtool.stages.quality import Quality, measure, tonal_background
from podtool.stages.stretches import cut_at_pauses

if TYPE_CHECKING:
    from podtool.training.adapt import Gain

HIGHEST_RATE = 48000  # more is of no use to a voice


@dataclass(frozen=True, slots=True)
class CloneParams:
    """Settings of enrolment."""

    engine: str = field(default="auto", metadata={"help": "conversion engine that the voice is of"})
    enrolment_s: float = field(
        default=90.0, metadata={"help": "seconds of the best speech that a voice is made of"}
    )
    min_speech_s: float = field(default=3.0, metadata={"help": "less speech than this is refused"})
    good_speech_s: float = field(
        default=20.0, metadata={"help": "less speech than this gives a warning"}
    )
    clip_s: float = field(default=10.0, metadata={"help": "longest clip"})
    min_clip_s: float = field(default=1.0, metadata={"help": "shorter clips are a last resort"})
    low_snr_db: float = field(
        default=15.0, metadata={"help": "clips noisier than this are a last resort"}
    )
    clipped_share: float = field(
        default=0.001, metadata={"help": "clips with more full-scale samples are a last resort"}
    )
    second_person_s: float = field(
        default=1.5, metadata={"help": "a reference holds a second person from this many seconds"}
    )
    second_person_share: float = field(
        default=0.1, metadata={"help": "and from this share of its speech"}
    )
    music_share: float = field(
        default=0.03, metadata={"help": "share of tones in the background that counts as music"}
    )
    music_snr_db: float = field(
        default=25.0, metadata={"help": "music further below the speech than this is tolerated"}
    )
    adapt_min: float = field(
        default=0.0,
        metadata={
            "help": "minutes of the speaker's best speech that the converter is adapted to; 0: not"
        },
    )
    outlier: float = field(
        default=0.25, metadata={"help": "clips this much less alike than the others are left out"}
    )


class Embedder(Protocol):
    """What describes a voice as a unit vector; the conversion never sees it."""

    def embed(self, audio: Audio) -> NDArray[np.float32]: ...


class Adapter(Protocol):
    """What teaches a voice weights of its own, and tells what they gained."""

    def __call__(
        self, profile: SpeechProfile, clips: Sequence[Audio]
    ) -> tuple[SpeechProfile, Gain]: ...


class Enroller(Protocol):
    """The part of a conversion engine that makes a voice."""

    def enrol(self, clips: Sequence[Audio], workers: int = 1) -> SpeechProfile: ...


@dataclass(frozen=True, slots=True)
class ClonedVoice:
    """A voice and how it came about: what a `voice` row and its state file hold."""

    profile: SpeechProfile
    clips: tuple[EnrolmentClip, ...]
    embedding: NDArray[np.float32] | None
    statistics: dict[str, float]
    warnings: tuple[str, ...]
    gain: Gain | None = None  # of adapting, where it was asked for


@dataclass(frozen=True, slots=True)
class _Clip:
    span: Span
    quality: Quality
    vector: NDArray[np.float32] | None = None


def reference_speaker(turns: Sequence[Turn], params: CloneParams | None = None) -> str:
    """The one speaker of a reference recording.

    Raises InputError where nobody speaks, or where a second person does.
    """
    params = params or CloneParams()
    spoken = {
        s: total(Span(t.start, t.end) for t in turns if t.speaker == s)
        for s in sorted({t.speaker for t in turns})
    }
    if not spoken:
        raise InputError("the reference holds no speech", "Give a recording of the person talking.")
    ranked = sorted(spoken, key=lambda s: -spoken[s])
    if len(ranked) > 1:
        second = spoken[ranked[1]]
        if second >= params.second_person_s and second >= params.second_person_share * sum(
            spoken.values()
        ):
            at = min(t.start for t in turns if t.speaker == ranked[1])
            raise InputError(
                f"the reference holds {len(ranked)} people: the second speaks for {second:.1f} s, "
                f"first at {at:.1f} s",
                "Cut the clip to one person, or clone a speaker of a diarized file (--speaker).",
            )
    return ranked[0]


def refuse_music(
    source: AudioSource, spans: Sequence[Span], params: CloneParams | None = None
) -> tuple[str, ...]:
    """Raises InputError where music or other voices lie behind the speech; warns where faint.

    Judged on up to two minutes from the first of `spans` to the last, pauses included.
    """
    params = params or CloneParams()
    if not spans:
        return ()
    start, end = min(s.start for s in spans), max(s.end for s in spans)
    audio = _read(source, Span(max(0.0, start - 0.5), min(end + 0.5, start + 120.0)), 16000)
    background = tonal_background(audio)
    if background.share >= params.music_share and background.snr_db < params.music_snr_db:
        raise InputError(
            f"there is music, or other voices, behind the speech of the reference "
            f"({background.snr_db:.0f} dB below it)",
            "Give clean speech: `podtool separate` takes the background away first.",
        )
    if background.share >= params.music_share * 2 / 3 and background.snr_db < 30:
        return (
            f"there may be faint music or voices behind the speech ({background.snr_db:.0f} dB "
            "below it)",
        )
    return ()


def clone(
    source: AudioSource,
    recording: str,
    turns: Sequence[Turn],
    speaker: str,
    engine: Enroller,
    embedder: Embedder | None = None,
    params: CloneParams | None = None,
    workers: int = 0,
    on_progress: OnProgress = ignore,
    adapter: Adapter | None = None,
) -> ClonedVoice:
    """A voice from the best clips of one speaker of a recording (or of its speech stem).

    The `adapter` is given the best `adapt_min` minutes. Raises InputError for a speaker who is not
    there, under `min_speech_s` of usable speech, or too little of it to adapt to.
    """
    params = params or CloneParams()
    known = sorted({t.speaker for t in turns})
    if speaker not in known:
        raise InputError(
            f"there is no speaker {speaker!r}", f"Speakers: {', '.join(known) or 'none'}"
        )
    own = union(Span(t.start, t.end) for t in turns if t.speaker == speaker)
    others = union(Span(t.start, t.end) for t in turns if t.speaker != speaker)
    alone = subtract(own, others)
    _enough(total(alone), params)
    found = _measured(source, alone, embedder, params, on_progress)
    warnings: list[str] = []
    found, odd = _without_outliers(found, params)
    if odd:
        warnings.append(f"{odd} clips sound like somebody else and were left out")
    chosen = _chosen(found, params)
    clips = [_read(source, c.span, min(source.sample_rate, HIGHEST_RATE)) for c in chosen]
    profile = engine.enrol(clips, workers=workers or os.cpu_count() or 1)
    _enough(profile.seconds, params)
    gain = None
    if adapter is not None and params.adapt_min > 0:
        more = _chosen(found, replace(params, enrolment_s=60 * params.adapt_min))
        rate = min(source.sample_rate, HIGHEST_RATE)
        profile, gain = adapter(profile, [_read(source, c.span, rate) for c in more])
        if not gain.steps:
            warnings.append("adapting gained nothing: the voice is as it is without")
    warnings += _warnings(chosen, profile, params)
    embedding, likeness = _embedding(chosen)
    statistics = profile.statistics()
    statistics["snr_db"] = round(float(np.median([c.quality.snr_db for c in chosen])), 2)
    statistics["clips"] = float(len(chosen))
    if likeness is not None:
        statistics["clip_similarity"] = round(likeness, 4)
        if likeness < 0.5:
            warnings.append(
                f"the clips are not much alike (similarity {likeness:.2f}): listen to them"
            )
    rows = tuple(
        EnrolmentClip(recording, c.span.start, c.span.end, round(c.quality.snr_db, 1))
        for c in sorted(chosen, key=lambda c: c.span)
    )
    return ClonedVoice(profile, rows, embedding, statistics, tuple(warnings), gain)


def _enough(seconds: float, params: CloneParams) -> None:
    if seconds < params.min_speech_s:
        raise InputError(
            f"there are {seconds:.1f} s of speech of one person alone; "
            f"a voice needs at least {params.min_speech_s:g} s",
            "Half a minute or more of clean speech makes a good voice.",
        )


def _read(source: AudioSource, span: Span, rate: int) -> Audio:
    """Mono audio of a span at `rate`."""
    have = source.sample_rate
    block = source.read(round(span.start * have), min(source.frames, round(span.end * have)))
    return resample(to_mono(block), rate)


def _measured(
    source: AudioSource,
    alone: Sequence[Span],
    embedder: Embedder | None,
    params: CloneParams,
    on_progress: OnProgress,
) -> list[_Clip]:
    """Candidate clips with their quality. Of hours of speech, pieces all along are looked at."""
    found: list[_Clip] = []
    spans = _thinned(alone, max(6 * params.enrolment_s, 120 * params.adapt_min))
    done, whole = 0.0, total(spans)
    for span in spans:
        for start in np.arange(span.start, span.end, 60.0):
            block = _read(source, Span(float(start), min(span.end, float(start) + 60.0)), 16000)
            for piece in cut_at_pauses(block, params.clip_s):
                here = block.read(round(piece.start * 16000), round(piece.end * 16000))
                if here.duration < 0.4:
                    continue
                vector = embedder.embed(here) if embedder and here.duration >= 1.0 else None
                at = Span(float(start) + piece.start, float(start) + piece.end)
                found.append(_Clip(at, measure(here), vector))
        done += span.duration
        on_progress(Progress("clone", done, whole))
    return found


def _thinned(spans: Sequence[Span], limit_s: float) -> list[Span]:
    """The spans, or where they are more than `limit_s` pieces of up to a minute spread evenly."""
    if total(spans) <= limit_s:
        return list(spans)
    pieces = [
        Span(float(a), min(s.end, float(a) + 60.0))
        for s in spans
        for a in np.arange(s.start, s.end, 60.0)
    ]
    useful = [p for p in pieces if p.duration >= 2.0] or pieces
    count = max(1, int(limit_s / (total(useful) / len(useful))))
    picks = np.unique(np.linspace(0, len(useful) - 1, min(count, len(useful))).round().astype(int))
    return [useful[k] for k in picks]


def _without_outliers(clips: list[_Clip], params: CloneParams) -> tuple[list[_Clip], int]:
    """Clips whose embedding is far less like the rest than the others are: somebody else's."""
    vectors = [c.vector for c in clips if c.vector is not None]
    if len(vectors) < 4:
        return clips, 0
    matrix = np.stack(vectors)
    centre = np.median(matrix, axis=0)
    centre /= np.linalg.norm(centre) + 1e-9
    typical = float(np.median(matrix @ centre))
    kept = [
        c for c in clips if c.vector is None or float(c.vector @ centre) >= typical - params.outlier
    ]
    return kept, len(clips) - len(kept)


def _chosen(clips: list[_Clip], params: CloneParams) -> list[_Clip]:
    """The best clips up to `enrolment_s`, sound ones before doubtful ones."""

    def rank(clip: _Clip) -> tuple[bool, float]:
        q = clip.quality
        doubtful = (
            q.snr_db < params.low_snr_db
            or q.clipped > params.clipped_share
            or clip.span.duration < params.min_clip_s
        )
        return doubtful, -min(q.snr_db, 40.0) - min(clip.span.duration, 5.0)

    chosen: list[_Clip] = []
    seconds = 0.0
    for clip in sorted(clips, key=lambda c: (rank(c), c.span)):
        if rank(clip)[0] and seconds >= max(params.good_speech_s, params.min_speech_s):
            break
        if clip.quality.level_dbfs < -70:
            continue
        chosen.append(clip)
        seconds += clip.span.duration
        if seconds >= params.enrolment_s:
            break
    if not chosen:
        raise InputError("the speaker's clips are silent", "Give a recording of speech.")
    return chosen


def _warnings(chosen: list[_Clip], profile: SpeechProfile, params: CloneParams) -> list[str]:
    told = []
    if profile.seconds < params.good_speech_s:
        told.append(
            f"only {profile.seconds:.0f} s of usable speech: {params.good_speech_s:.0f} s or more "
            "give a better voice"
        )
    snr = float(np.median([c.quality.snr_db for c in chosen]))
    if snr < params.low_snr_db:
        told.append(f"the speech is noisy ({snr:.0f} dB above its background)")
    if max(c.quality.clipped for c in chosen) > params.clipped_share:
        told.append("the recording is clipped")
    if profile.bandwidth_hz < 7000:
        told.append(f"the reference holds nothing above {profile.bandwidth_hz / 1000:.1f} kHz")
    if not profile.voiced.any():
        told.append("no pitch was found (whispering?): the pitch of the source will be kept")
    return told


def _embedding(chosen: list[_Clip]) -> tuple[NDArray[np.float32] | None, float | None]:
    """Mean embedding of the clips, weighted by length, and their mean similarity to each other."""
    have = [(c.vector, c.span.duration) for c in chosen if c.vector is not None]
    if not have:
        return None, None
    matrix = np.stack([v for v, _ in have]).astype(np.float64)
    mean = np.array([s for _, s in have]) @ matrix
    mean /= np.linalg.norm(mean) + 1e-12
    if len(have) < 2:
        return mean.astype(np.float32), None
    alike = matrix @ matrix.T
    n = len(have)
    return mean.astype(np.float32), float((alike.sum() - np.trace(alike)) / (n * (n - 1)))


def with_reference_checks(
    source: AudioSource, turns: Sequence[Turn], params: CloneParams | None = None
) -> tuple[str, tuple[str, ...]]:
    """(the speaker of a reference, warnings): all checks that a bare reference must pass.

    Raises InputError for nobody, two people, too little speech, or music behind it.
    """
    params = params or CloneParams()
    speaker = reference_speaker(turns, params)
    spans = union(Span(t.start, t.end) for t in turns if t.speaker == speaker)
    _enough(total(spans), params)
    return speaker, refuse_music(source, spans, params)
