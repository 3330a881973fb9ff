"""Who speaks when: turns with overlap kept, overlap segments, speakers with embeddings.

Segmentation of overlapping windows, one embedding for every few seconds of a voice alone,
clustering in two levels, and a vote of the windows on every frame. Memory grows with the
recording by about 12 MB an hour.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Embedding, Segment, Speaker, Turn
from podtool.audio import Audio, AudioSource
from podtool.engines.diarization_cluster import (
    Count,
    SpeakerModel,
    cluster,
    label_units,
    pooled,
    unit,
)
from podtool.engines.diarization_windows import (
    Unit,
    Windows,
    collect_units,
    link,
    pauses,
    share_frames,
    together,
    traces,
    vote_how_many,
    vote_speakers,
)
from podtool.engines.embedding_campplus import CamPlusPlus
from podtool.engines.mel_denoise import NoiseProfile, profile, snr_db, subtract
from podtool.engines.segmentation_pyannote import (
    FRAME_SIZE,
    FRAME_STEP,
    RATE,
    WINDOW,
    PyannoteSegmentation,
)
from podtool.engines.vad_silero import SileroVad, hysteresis
from podtool.errors import InputError
from podtool.progress import OnProgress, Progress, Timings, ignore
from podtool.resample import at_rate
from podtool.segments import Span, fill_gaps, intersect, total

Floats = NDArray[np.float32]
HALF_FRAME = (FRAME_SIZE - FRAME_STEP) // 2  # a frame stands for the middle of what it sees
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class DiarizeParams:
    """Settings of diarization; see the help text of each."""

    engine: str = field(
        default="podtool",
        metadata={"help": "who hears the voices: podtool, or an engine of the stage diarization"},
    )
    speakers: int | None = field(default=None, metadata={"help": "exactly this many people"})
    min_speakers: int = field(default=1, metadata={"help": "at least this many people"})
    max_speakers: int = field(default=20, metadata={"help": "at most this many people"})
    fill_gap_s: float = field(
        default=1.0, metadata={"help": "pauses up to this long inside a turn count as speech"}
    )
    pad_s: float = field(
        default=0.1,
        metadata={"help": "turns reach this far into silence: onsets and breaths belong to them"},
    )
    min_turn_s: float = field(default=0.2, metadata={"help": "shorter turns are dropped"})
    hop_s: float = field(default=2.5, metadata={"help": "distance of the 10 s windows"})
    unit_s: float = field(default=4.0, metadata={"help": "longest stretch embedded at once"})
    speech_onset: float = field(default=0.5, metadata={"help": "probability that starts speech"})
    speech_offset: float = field(default=0.3, metadata={"help": "probability that ends speech"})
    overlap_onset: float = field(
        default=0.5, metadata={"help": "probability of two voices that counts as overlap"}
    )
    merge_bound: float = field(
        default=0.0, metadata={"help": "least score of one voice (log ratio per dimension)"}
    )
    smallest_speaker_s: float = field(
        default=3.0, metadata={"help": "a voice heard alone for less than this is no speaker"}
    )
    smallest_share: float = field(
        default=0.04, metadata={"help": "or for less than this share of the speech, in short files"}
    )
    mixture: float = field(
        default=0.55, metadata={"help": "a voice explained so well by two others is none"}
    )
    purity: float = field(
        default=0.3, metadata={"help": "probability of a second voice that spoils an embedding"}
    )
    least_voice: float = field(
        default=0.25, metadata={"help": "mean Silero probability below which it is music or noise"}
    )
    enrolled_cosine: float = field(
        default=0.5, metadata={"help": "similarity from which an enrolled name is given"}
    )
    denoise: str = field(
        default="auto", metadata={"help": "clean voices before comparing: auto, always, never"}
    )
    beneath: float = field(
        default=0.2, metadata={"help": "share of the recording heard beneath a stem of it"}
    )
    denoise_snr_db: float = field(
        default=5.0, metadata={"help": "auto cleans voices that are less above the noise than this"}
    )
    noise_s: float = field(
        default=1.4, metadata={"help": "seconds of speech that carry as much noise as voice"}
    )
    session: float = field(
        default=0.18,
        metadata={"help": "energy of what changes within one voice, rooms and moods (voice: 1)"},
    )
    shortest_unit_s: float = field(
        default=0.3, metadata={"help": "shorter stretches are not embedded"}
    )
    pause_probability: float = field(
        default=0.05, metadata={"help": "probability of silence at which speakers may change"}
    )
    dims: float = field(default=60.0, metadata={"help": "independent dimensions of the embedding"})
    switch_cost: float = field(
        default=4.0, metadata={"help": "cost of a change of speaker that segmentation missed, nats"}
    )
    link_agreement: float = field(
        default=0.6, metadata={"help": "agreement of two windows on one local speaker"}
    )

    def count(self) -> Count:
        """Bounds on the number of speakers. Raises InputError where settings contradict."""
        if not 0 <= self.beneath <= 1:
            raise InputError(f"beneath is a share from 0 to 1, not {self.beneath:g}")
        if self.denoise not in ("auto", "always", "never"):
            raise InputError(f"denoise is auto, always or never, not {self.denoise!r}")
        if self.speakers is not None:
            if self.speakers < 1:
                raise InputError("the number of speakers must be at least 1")
            return Count(self.speakers, self.speakers)
        if not 1 <= self.min_speakers <= self.max_speakers:
            raise InputError(
                f"no number of speakers is at least {self.min_speakers} "
                f"and at most {self.max_speakers}"
            )
        return Count(self.min_speakers, self.max_speakers)


@dataclass(frozen=True, slots=True)
class DiarizeEngines:
    """The three models that diarization uses."""

    vad: SileroVad
    segmentation: PyannoteSegmentation
    embedding: CamPlusPlus


@dataclass(frozen=True, slots=True)
class Diarization:
    """The rows of a diarization, in order of time; speakers in order of first appearance."""

    turns: tuple[Turn, ...] = ()
    overlaps: tuple[Segment, ...] = ()
    speakers: tuple[Speaker, ...] = ()

    @property
    def speech_s(self) -> float:
        """Seconds in which anyone speaks."""
        return total(Span(t.start, t.end) for t in self.turns)

    @property
    def overlap_s(self) -> float:
        return sum(s.end - s.start for s in self.overlaps)


def diarize(
    audio: AudioSource,
    recording: str,
    engines: DiarizeEngines,
    params: DiarizeParams = DiarizeParams(),  # noqa: B008 - frozen
    enrolled: Mapping[str, Floats] | None = None,
    on_progress: OnProgress = ignore,
    timings: Timings | None = None,
    workers: int = 0,
) -> Diarization:
    """Turns, overlaps and speakers of a recording of any rate and channel count.

    `enrolled` maps names to CAM++ embeddings (192,). `workers` threads (0: one per core) change
    the time, never the result. No speech gives no rows.
    """
    timings = timings if timings is not None else Timings()
    count = params.count()
    with timings.part("resample"):
        mono = at_rate(audio, RATE)
    duration = audio.frames / audio.sample_rate
    with ThreadPoolExecutor(workers or _cores()) as pool:
        with timings.part("segmentation"):
            windows = _segment(mono, engines.segmentation, params, pool, on_progress)
        with timings.part("linking"):
            how_many = vote_how_many(windows)
            chains = traces(windows, link(windows, params.link_agreement))
            cuts = pauses(how_many[:, 0], reach=10, least=params.pause_probability)
            units = collect_units(
                chains,
                windows.total,
                cuts,
                how_many[:, 2],
                params.purity,
                longest=round(params.unit_s * RATE / FRAME_STEP),
                shortest=round(params.shortest_unit_s * RATE / FRAME_STEP),
            )
        with timings.part("vad"):
            heard = _heard(mono, engines.vad, windows.total, on_progress)
            units = _without_music(units, how_many, heard, params.least_voice)
        with timings.part("noise"):
            noise = _noise(mono, how_many, engines, params)
        with timings.part("embedding"):
            vectors = _embed(mono, units, engines, noise, params, pool, on_progress)
    if not units:
        return Diarization()
    with timings.part("clustering"):
        seconds = np.array([u.frames * FRAME_STEP / RATE for u in units], np.float32)
        clean = np.array([u.clean for u in units])
        known = clean if clean.any() else ~clean
        smallest_s = min(
            params.smallest_speaker_s, params.smallest_share * float(seconds[known].sum())
        )
        model = SpeakerModel(params.noise_s, params.session)
        founders = cluster(
            vectors[known],
            seconds[known],
            model,
            count,
            params.merge_bound,
            smallest_s,
            block=250,
            mixture=params.mixture,
        )
        sums, totals = pooled(founders, vectors[known], seconds[known])
        centres = unit(sums)
        shares = share_frames(chains, units, cuts)
        labels = label_units(
            centres,
            totals,
            vectors,
            seconds,
            clean,
            np.array([u.chain for u in units]),
            together(chains, shares),
            model,
            params.dims,
            params.switch_cost,
        )
        votes = vote_speakers(chains, shares, labels, len(centres), windows.total)
    spans = _decode(how_many, votes, params, engines, duration)
    return _rows(recording, spans, votes, centres, engines, params, enrolled or {}, duration)


def same_voice(found: Diarization, others_s: float = 1.0) -> bool:
    """Whether a clip holds one person: all but the first talk for at most `others_s` seconds."""
    seconds = sorted((s.speech_s for s in found.speakers), reverse=True)
    return bool(seconds) and sum(seconds[1:]) <= others_s and found.overlap_s <= others_s


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _segment(
    mono: AudioSource,
    engine: PyannoteSegmentation,
    params: DiarizeParams,
    pool: ThreadPoolExecutor,
    on_progress: OnProgress,
) -> Windows:
    hop = max(1, round(params.hop_s * RATE / FRAME_STEP))
    hop_samples = hop * FRAME_STEP
    count = 1 + max(0, -(-(mono.frames - WINDOW) // hop_samples))
    length = 1 + (WINDOW - FRAME_SIZE) // FRAME_STEP
    frames = max(1, 1 + (mono.frames - FRAME_SIZE) // FRAME_STEP)
    probabilities = np.zeros((count, length, 7), np.float16)
    probabilities[:, :, 0] = 1.0

    def inputs() -> Iterator[Audio]:
        for k in range(count):
            at = k * hop_samples
            yield mono.read(at, min(at + WINDOW, mono.frames))

    for k, found in enumerate(_in_order(pool, engine.activity, inputs())):
        probabilities[k, : len(found)] = found
        done = min(mono.frames, k * hop_samples + WINDOW) / RATE
        on_progress(Progress("diarize: segmentation", done, mono.frames / RATE))
    return Windows(probabilities, hop, min(frames, (count - 1) * hop + length))


def _heard(
    mono: AudioSource, vad: SileroVad, frames: int, on_progress: OnProgress
) -> NDArray[np.float64]:
    """Running sum (frames + 1,) of Silero's speech probability on the segmentation's frames."""
    parts = [np.zeros(0, np.float32)]
    state = None
    size = 512 * 1024
    for start in range(0, mono.frames, size):
        stop = min(start + size, mono.frames)
        found, state = vad.probabilities(mono.read(start, stop).samples[0], state)
        parts.append(found)
        on_progress(Progress("diarize: vad", stop / RATE, mono.frames / RATE))
    voice = np.concatenate(parts)
    middle = (np.arange(frames) * FRAME_STEP + FRAME_SIZE // 2) // 512
    return np.concatenate([[0.0], np.cumsum(voice[np.minimum(middle, len(voice) - 1)])])


def _without_music(
    units: Sequence[Unit], how_many: Floats, heard: NDArray[np.float64], least: float
) -> list[Unit]:
    """The units that Silero hears as speech; `how_many` becomes silence everywhere else."""

    def voiced(a: int, b: int) -> bool:
        return bool(heard[b] - heard[a] >= least * (b - a))

    kept = [u for u in units if voiced(u.start, u.stop)]
    for u in units:
        if not voiced(u.start, u.stop):
            how_many[u.start : u.stop] = (1.0, 0.0, 0.0)
    speech = np.concatenate(([0], (how_many[:, 0] < 0.5).astype(np.int8), [0]))
    edges = np.flatnonzero(np.diff(speech))
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        if not voiced(int(a), int(b)):
            how_many[a:b] = (1.0, 0.0, 0.0)
    return kept


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In]
) -> Iterator[_Out]:
    """Results of work(item) in order, with at most a few items in flight."""
    waiting: deque[Future[_Out]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > 8:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _noise(
    mono: AudioSource, how_many: Floats, engines: DiarizeEngines, params: DiarizeParams
) -> NoiseProfile | None:
    if params.denoise == "never":
        return None

    def features(start_s: float, stop_s: float) -> Floats:
        first = round(start_s * RATE) + HALF_FRAME
        block = mono.read(first, first + round((stop_s - start_s) * RATE))
        return engines.embedding.features(block.samples[0])

    return profile(how_many[:, 0] > 0.9, FRAME_STEP / RATE, features)


def _embed(
    mono: AudioSource,
    units: Sequence[Unit],
    engines: DiarizeEngines,
    noise: NoiseProfile | None,
    params: DiarizeParams,
    pool: ThreadPoolExecutor,
    on_progress: OnProgress,
) -> Floats:
    engine = engines.embedding

    def inputs() -> Iterator[tuple[Floats, Floats | None]]:
        for u in units:
            start = u.start * FRAME_STEP + HALF_FRAME
            samples = mono.read(start, start + u.frames * FRAME_STEP).samples[0]
            yield samples, noise.at(start / RATE) if noise is not None else None

    def work(item: tuple[Floats, Floats | None]) -> Floats:
        features = engine.features(item[0])
        background = item[1]
        if background is not None and (
            params.denoise == "always" or snr_db(features, background) < params.denoise_snr_db
        ):
            features = subtract(features, background)
        return engine.embed_features(features)

    vectors = np.zeros((len(units), engine.dim), np.float32)
    for i, vector in enumerate(_in_order(pool, work, inputs())):
        vectors[i] = vector
        on_progress(Progress("diarize: embedding", i + 1, len(units), "units"))
    return vectors


def _decode(
    how_many: Floats,
    votes: Floats,
    params: DiarizeParams,
    engines: DiarizeEngines,
    duration: float,
) -> list[list[Span]]:
    """Votes -> spans of each speaker: as many as there are voices, the strongest first."""
    speech = hysteresis(1 - how_many[:, 0], params.speech_onset, params.speech_offset)
    double = how_many[:, 2] > params.overlap_onset
    order = np.argsort(-votes, axis=1, kind="stable")
    active = np.zeros(votes.shape, bool)
    rows = np.arange(len(votes))
    known = votes[rows, order[:, 0]] > 0
    active[rows, order[:, 0]] = speech & known
    if votes.shape[1] > 1:
        both = double & (votes[rows, order[:, 1]] > 0.1)
        active[rows[both], order[both, 1]] = True
    grid = engines.segmentation.grid
    result = []
    for g in range(votes.shape[1]):
        spans = fill_gaps(grid.spans(active[:, g]), params.fill_gap_s)
        spans = [Span(max(0.0, s.start), min(s.end, duration)) for s in spans]
        result.append([s for s in spans if s.duration >= params.min_turn_s])
    return into_silence(result, params.pad_s, duration)


def into_silence(
    spans: Sequence[Sequence[Span]], pad_s: float, duration: float
) -> list[list[Span]]:
    """Spans of each speaker with their edges moved by `pad_s` where nobody speaks.

    Two edges that meet in a pause share it; no overlap arises that was not there.
    """
    busy = fill_gaps((s for own in spans for s in own), 0.0)
    starts = np.array([s.start for s in busy])
    ends = np.array([s.end for s in busy])
    result = []
    for own in spans:
        moved = []
        for start, end in own:
            # An edge lies in silence where it is also an edge of the time that anybody speaks.
            i, j = np.searchsorted(starts, start), np.searchsorted(ends, end)
            if i < len(starts) and starts[i] == start:
                room = start - ends[i - 1] if i else 2 * start
                start -= min(pad_s, room / 2)
            if j < len(ends) and ends[j] == end:
                room = starts[j + 1] - end if j + 1 < len(starts) else 2 * (duration - end)
                end += min(pad_s, room / 2)
            moved.append(Span(float(start), float(end)))
        result.append(moved)
    return result


def _rows(
    recording: str,
    spans: list[list[Span]],
    votes: Floats,
    centres: Floats,
    engines: DiarizeEngines,
    params: DiarizeParams,
    enrolled: Mapping[str, Floats],
    duration: float,
) -> Diarization:
    present = [g for g in range(len(spans)) if spans[g]]
    present.sort(key=lambda g: (spans[g][0].start, g))
    label = {g: f"S{i + 1}" for i, g in enumerate(present)}
    every = sorted((s.start, s.end, label[g], g) for g in present for s in spans[g])
    grid = engines.segmentation.grid
    turns = []
    for i, (start, end, name, g) in enumerate(every, 1):
        a, b = grid.nearest(start), max(grid.nearest(end), grid.nearest(start) + 1)
        score = float(np.clip(votes[max(0, a) : b, g].mean(), 0, 1)) if b > a else 0.0
        turns.append(
            Turn(f"t{i:04d}", recording, round(start, 6), round(end, 6), name, round(score, 4))
        )
    overlaps = [
        Segment(recording, round(s.start, 6), round(s.end, 6), "overlap") for s in overlap_of(spans)
    ]
    names = named(centres, present, enrolled, params.enrolled_cosine)
    speakers = []
    for g in present:
        others = [s for h in present if h != g for s in spans[h]]
        own = [t for t in turns if t.speaker == label[g]]
        seconds = sum(t.end - t.start for t in own)
        score = sum((t.score or 0) * (t.end - t.start) for t in own) / max(seconds, 1e-9)
        speakers.append(
            Speaker(
                label[g],
                recording,
                round(seconds, 6),
                round(total(intersect(spans[g], others)), 6),
                names.get(g),
                round(score, 4),
                Embedding("campplus", tuple(round(float(x), 6) for x in centres[g])),
            )
        )
    return Diarization(tuple(turns), tuple(overlaps), tuple(speakers))


def overlap_of(spans: Sequence[Sequence[Span]]) -> list[Span]:
    """Where two or more of the speakers are heard, given the spans of each."""
    found: list[Span] = []
    for g in range(len(spans)):
        for h in range(g):
            found += intersect(spans[g], spans[h])
    return fill_gaps(found, 0.0)


def named(
    centres: Floats, present: Sequence[int], enrolled: Mapping[str, Floats], least: float
) -> dict[int, str]:
    """Speakers with an enrolled name: best pairs first, each name once."""
    pairs = [
        (float(centres[g] @ unit(np.asarray(v, np.float32))), name, g)
        for name, v in enrolled.items()
        for g in present
    ]
    given: dict[int, str] = {}
    for cosine, name, g in sorted(pairs, key=lambda p: (-p[0], p[1], p[2])):
        if cosine >= least and g not in given and name not in given.values():
            given[g] = name
    return given
