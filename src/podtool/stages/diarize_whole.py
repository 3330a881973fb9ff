"""Who speaks when, as an engine hears it that reads the whole recording at once.

The stage makes rows of what the engine answers: the same gaps filled and short turns dropped as in
`podtool.stages.diarize`, and an embedding of each voice from where it is heard alone. Memory: the
recording at the engine's rate (230 MB an hour at 16 kHz), and what the engine makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from podtool.artifacts import Embedding, Segment, Speaker, Turn
from podtool.audio import Audio, AudioSource
from podtool.engines.protocols import DiarizationEngine, EmbeddingEngine
from podtool.errors import EngineFailure, InputError, PodtoolError
from podtool.progress import OnProgress, Progress, Timings, ignore
from podtool.resample import at_rate
from podtool.segments import Span, fill_gaps, intersect, subtract, total, union
from podtool.stages.diarize import Diarization, DiarizeParams, Floats, named, overlap_of

_VOICE_S = 30.0  # of a voice alone make its embedding
_SHORTEST_S = 0.3  # shorter stretches are not embedded


def diarize_whole(
    audio: AudioSource,
    recording: str,
    engine: DiarizationEngine,
    embedding: EmbeddingEngine,
    params: DiarizeParams,
    enrolled: Mapping[str, Floats] | None = None,
    on_progress: OnProgress = ignore,
    timings: Timings | None = None,
) -> Diarization:
    """Turns, overlaps and speakers of a recording of any rate and channel count.

    `enrolled` maps names to vectors of the embedding. Raises InputError where the number of
    people is given to an engine that cannot be told, EngineFailure where the engine fails.
    """
    timings = timings if timings is not None else Timings()
    count = params.count()
    if count != DiarizeParams().count() and not engine.counts:
        raise InputError(
            f"{engine.info.name} cannot be told how many people there are",
            "Leave the number out, or take another engine.",
        )
    duration = audio.frames / audio.sample_rate
    with timings.part("resample"):
        mono = at_rate(audio, engine.info.sample_rate)
        whole = mono.read()
    on_progress(Progress("diarize", 0.0, duration))
    with timings.part("diarization"):
        spans = _spans(engine, whole, count.least, count.most, params, duration)
    on_progress(Progress("diarize", duration, duration))
    del whole
    with timings.part("embedding"):
        centres = _centres(at_rate(audio, embedding.info.sample_rate), spans, embedding)
    return _rows(recording, spans, centres, embedding.info.name, params, enrolled or {})


def _spans(
    engine: DiarizationEngine,
    audio: Audio,
    least: int,
    most: int,
    params: DiarizeParams,
    duration: float,
) -> list[list[Span]]:
    """The spans of each voice, voices in order of first appearance."""
    try:
        found = engine.diarize(audio, least, most)
    except PodtoolError:
        raise
    except Exception as error:
        raise EngineFailure(f"the diarization engine {engine.info.name} failed: {error}") from error
    result = []
    for voice in sorted({s.voice for s in found}):
        own = (Span(max(0.0, s.start), min(s.end, duration)) for s in found if s.voice == voice)
        spans = fill_gaps(union(s for s in own if s.end > s.start), params.fill_gap_s)
        result.append([s for s in spans if s.duration >= params.min_turn_s])
    return sorted((s for s in result if s), key=lambda s: s[0])


def _centres(
    mono: AudioSource, spans: Sequence[Sequence[Span]], embedding: EmbeddingEngine
) -> Floats:
    """(voices, dim): each voice where it is heard alone, else where it is heard."""
    rate = mono.sample_rate
    centres = np.zeros((len(spans), embedding.dim), np.float32)
    for g, own in enumerate(spans):
        others = [s for h, more in enumerate(spans) if h != g for s in more]
        alone = [s for s in subtract(own, others) if s.duration >= _SHORTEST_S]
        pieces, left = [], _VOICE_S
        for start, end in sorted(alone or own, key=lambda s: s.start - s.end):
            first = round(start * rate)
            pieces.append(mono.read(first, first + round(min(end - start, left) * rate)).samples)
            left -= end - start
            if left <= 0:
                break
        centres[g] = embedding.embed(Audio(np.concatenate(pieces, axis=1), rate))
    return centres


def _rows(
    recording: str,
    spans: Sequence[Sequence[Span]],
    centres: Floats,
    model: str,
    params: DiarizeParams,
    enrolled: Mapping[str, Floats],
) -> Diarization:
    voices = range(len(spans))
    every = sorted((s.start, s.end, f"S{g + 1}") for g in voices for s in spans[g])
    turns = [
        Turn(f"t{i:04d}", recording, round(start, 6), round(end, 6), label)
        for i, (start, end, label) in enumerate(every, 1)
    ]
    overlaps = [
        Segment(recording, round(s.start, 6), round(s.end, 6), "overlap") for s in overlap_of(spans)
    ]
    names = named(centres, voices, enrolled, params.enrolled_cosine)
    speakers = []
    for g in voices:
        others = [s for h in voices if h != g for s in spans[h]]
        speakers.append(
            Speaker(
                f"S{g + 1}",
                recording,
                round(total(spans[g]), 6),
                round(total(intersect(spans[g], others)), 6),
                names.get(g),
                None,
                Embedding(model, tuple(round(float(x), 6) for x in centres[g])),
            )
        )
    return Diarization(tuple(turns), tuple(overlaps), tuple(speakers))
