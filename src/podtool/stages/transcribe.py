"""Who said what, when: turns and audio -> utterances with speaker and words, each with times.

Each speaker is read on a stream of their own, so overlapping speech gives overlapping utterances.
Where nobody talks over them, or without a talker separator, that stream is the audio itself over
the speaker's turns. Only where speech is heard is anything read, in windows cut inside speech;
`hearing.py` looks at what the recogniser makes of each.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from podtool.artifacts import Metric, Turn, Utterance, Word
from podtool.audio import Audio, AudioSource
from podtool.engines.protocols import AlignmentEngine, EngineInfo, TranscriptionEngine, VadEngine
from podtool.errors import EngineUnavailableError
from podtool.progress import OnProgress, Progress, Timings, ignore
from podtool.resample import at_rate, resample
from podtool.segments import Span, fill_gaps, intersect, union
from podtool.stages.align import flags, place_words, read_span
from podtool.stages.crosstalk import Stream, ends_sentence, settle
from podtool.stages.doubts import drawn_in, in_silence
from podtool.stages.hearing import Heard, Window
from podtool.stages.hearing import read as hear
from podtool.stages.stretches import Stretch, cut_at_pauses, owner, stretches

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TranscribeParams:
    engine: str = field(default="auto", metadata={"help": "Engine that reads the words."})
    language: str = field(
        default="auto",
        metadata={"help": "Language of the recording, as a BCP 47 tag; auto: the engine tells."},
    )
    model: str = field(
        default="",
        metadata={"help": "Model of the engine: an id, a folder, or a cached hub repository."},
    )
    prompt: str = field(
        default="",
        metadata={"help": "Names and words that come up, for engines that take a prompt."},
    )
    align: str = field(
        default="auto",
        metadata={"help": "Engine that times the words, or own: the recogniser's times."},
    )
    align_model: str = field(
        default="",
        metadata={"help": "Model of the aligner: an id, a folder, or a cached hub repository."},
    )
    longest_s: float | None = field(
        default=None,
        metadata={"help": "Longest stretch read at once, in seconds; none: as suits the engine."},
    )
    gate: bool = field(
        default=True,
        metadata={"help": "Read only where speech is heard; false: turns throughout (singing)."},
    )
    longest_silence_s: float = field(
        default=1.5,
        metadata={"help": "Silences longer than this are left out of what is read, in seconds."},
    )
    batch: int = field(
        default=0,
        metadata={"help": "Windows read at once; 0: 16 on CUDA, else 1."},
    )
    temperatures: tuple[float, ...] = field(
        default=(0.2, 0.4, 0.6, 0.8, 1.0),
        metadata={"help": "Temperatures at which doubtful text is read again."},
    )
    retry_below: float = field(
        default=0.3,
        metadata={"help": "Windows whose words score less on average are read again."},
    )
    merge_gap_s: float = field(
        default=1.0,
        metadata={"help": "Turns of a speaker this close are read together, in seconds."},
    )
    margin_s: float = field(
        default=0.2,
        metadata={"help": "Audio read around a stretch where nobody else speaks, in seconds."},
    )
    pause_s: float = field(
        default=0.7, metadata={"help": "A pause that ends an utterance, in seconds."}
    )
    shortest_s: float = field(
        default=0.2, metadata={"help": "Turns shorter than this are not read, in seconds."}
    )
    overlap_confidence: float = field(
        default=0.6,
        metadata={"help": "Words that score less are dropped where another speaker's are surer."},
    )
    apart_confidence: float = field(
        default=0.3,
        metadata={"help": "The same for words of overlaps that are read apart."},
    )
    overlap: Literal["auto", "separate", "mixture"] = field(
        default="auto",
        metadata={"help": "Read overlaps apart, or from the mixture; auto: apart where that runs."},
    )
    low_confidence: float = field(
        default=0.5, metadata={"help": "Words with a score below this count as doubtful."}
    )


_SENTENCE_PAUSE_S = 0.25
_BLOCK_S = 120.0  # a monologue goes through memory in pieces of at most this
_SPEECH_PAD_S = 0.2
_LANGUAGE_WINDOWS = 3


def _reads(info: EngineInfo, language: str) -> bool:
    return not info.languages or language.split("-")[0].lower() in info.languages


def check_language(info: EngineInfo, language: str) -> None:
    """Raises EngineUnavailableError where the engine does not read the language."""
    if language != "auto" and not _reads(info, language):
        raise EngineUnavailableError(
            f"{info.name} reads {', '.join(info.languages)} only, not {language}",
            "Another engine does: pip install 'podtool[mlx]', "
            "podtool models pull whisper-large-v3-turbo-mlx, then --engine mlx-whisper",
        )


def transcribe(
    audio: AudioSource,
    turns: Sequence[Turn],
    engine: TranscriptionEngine,
    aligner: AlignmentEngine | None,
    params: TranscribeParams | None = None,
    streams: Mapping[str, AudioSource] | None = None,
    on_progress: OnProgress = ignore,
    timings: Timings | None = None,
    speakers: Collection[str] | None = None,
    vad: VadEngine | None = None,
) -> list[Utterance]:
    """Utterances in order of start, ids u0001...; those of one speaker do not overlap.

    `streams`: a speaker's separated audio by label, read in place of `audio` where somebody talks
    over that speaker. `speakers`: the labels that are read, None: all. `aligner` None: the
    recogniser's own word times. `vad` None: turns count as speech throughout.
    Raises EngineUnavailableError for a language that the engine does not read.
    """
    params = params or TranscribeParams()
    timings = timings or Timings()
    check_language(engine.info, params.language)
    rate = engine.info.sample_rate
    with timings.part("resample"):
        source = at_rate(audio, rate)
        own = {label: at_rate(stream, rate) for label, stream in (streams or {}).items()}
    readable = [t for t in turns if t.end - t.start >= params.shortest_s]
    plan = [
        s
        for s in stretches(readable, params.merge_gap_s)
        if speakers is None or s.speaker in speakers
    ]
    language = _language(source, plan, engine, params, timings)
    work = sum(s.end - s.start for s in plan)
    done = 0.0
    read: list[tuple[Stretch, Stream, str | None]] = []
    told: dict[int, _Told] = {}
    jobs: list[tuple[int, Window]] = []

    def finish() -> None:
        """Read the windows that wait, and put their words into their streams."""
        with timings.part("recognition"):
            heard = hear([window for _, window in jobs], engine, language, params)
        with timings.part("alignment"):
            for (index, window), found in zip(jobs, heard, strict=True):
                told[index].add(found)
                read[index][1].words += _placed(window, found, aligner, language)
        jobs.clear()

    for index, stretch in enumerate(plan):
        others = [t for t in readable if t.speaker != stretch.speaker]
        talked_over = any(t.start < stretch.end and t.end > stretch.start for t in others)
        alone = talked_over and stretch.speaker in own
        voice = own[stretch.speaker] if alone else source
        name = f"speaker:{stretch.speaker}" if alone else None
        span = Span(stretch.start, stretch.end)
        read.append((stretch, Stream(stretch.speaker, span, []), name))
        told[index] = _Told()
        start, end = _with_margins(stretch, [] if alone else others, params.margin_s, voice)
        for window in _windows(voice, start, end, engine.info, vad, params, timings):
            jobs.append((index, window))
            if len(jobs) >= max(1, params.batch):
                finish()
        done += stretch.end - stretch.start
        on_progress(Progress("transcribe", done, work))
    if jobs:
        finish()
    for stretch, stream, _ in read:
        stream.words = _in_order(
            stream.words, stretch.start - params.margin_s, stretch.end + params.margin_s
        )
    settle([stream for _, stream, name in read if name is None], params.overlap_confidence)
    settle([stream for _, stream, name in read if name is not None], params.apart_confidence)
    found: list[Utterance] = []
    for index, (stretch, stream, name) in enumerate(read):
        found += _utterances(stream.words, stretch, params, name, told[index])
    return _numbered(found)


@dataclass(slots=True)
class _Told:
    """What the windows of a stretch said beside their words."""

    language: str | None = None
    doubts: set[str] = field(default_factory=set)
    engine: str | None = None

    def add(self, heard: Heard) -> None:
        self.language = self.language or heard.language
        self.engine = self.engine or heard.engine
        self.doubts.update(heard.doubts)


def _language(
    source: AudioSource,
    plan: Sequence[Stretch],
    engine: TranscriptionEngine,
    params: TranscribeParams,
    timings: Timings,
) -> str | None:
    """The language that is read: as told, the engine's only one, or the one heard most clearly.

    It is asked of the longest stretches, once, weighed by their length: short ones mislead. None
    where the engine has no way to tell, or decides for each window by itself.
    """
    if params.language != "auto":
        return params.language
    if len(engine.info.languages) == 1:
        return engine.info.languages[0]
    heard = getattr(engine, "languages_heard", None)
    if heard is None or not plan:
        return None
    longest = sorted(plan, key=lambda s: (s.start - s.end, s.start))[:_LANGUAGE_WINDOWS]
    sums: dict[str, float] = {}
    with timings.part("language"):
        for stretch in longest:
            end = min(stretch.end, stretch.start + (engine.info.window_s or 30.0))
            for code, share in heard(read_span(source, stretch.start, end)).items():
                sums[code] = sums.get(code, 0.0) + share * (end - stretch.start)
    best = max(sums, key=lambda code: (sums[code], code))
    log.info("language: %s (%.0f %%)", best, 100 * sums[best] / sum(sums.values()))
    return best


def _windows(
    stream: AudioSource,
    start: float,
    end: float,
    info: EngineInfo,
    vad: VadEngine | None,
    params: TranscribeParams,
    timings: Timings,
) -> Iterator[Window]:
    """The speech from `start` to `end` in pieces that suit the engine, cut at pauses."""
    longest = params.longest_s or info.stretch_s
    longest = min(longest, info.window_s or longest)
    for block in _blocks(stream, start, end):
        whole = read_span(stream, block.start, block.end)
        with timings.part("speech"):
            speech = _speech(whole, vad)
        for island in _islands(speech, whole.duration, params.longest_silence_s):
            heard = read_span(whole, island.start, island.end)
            for piece in cut_at_pauses(heard, longest):
                first, last = island.start + piece.start, island.start + piece.end
                within = intersect(speech, [Span(first, last)])
                if within:
                    yield Window(
                        read_span(heard, piece.start, piece.end),
                        block.start + first,
                        tuple(Span(s.start - first, s.end - first) for s in within),
                    )


def _blocks(stream: AudioSource, start: float, end: float) -> Iterator[Span]:
    """A stretch in pieces that fit into memory, cut at pauses."""
    while end - start > _BLOCK_S:
        half = read_span(stream, start + _BLOCK_S / 2, start + _BLOCK_S)
        cut = start + _BLOCK_S / 2 + cut_at_pauses(half, 0.6 * half.duration)[0].end
        yield Span(start, cut)
        start = cut
    yield Span(start, end)


def _speech(audio: Audio, vad: VadEngine | None) -> list[Span]:
    """Where somebody is heard in mono audio, a little grown; all of it without a detector."""
    whole = Span(0.0, audio.duration)
    if vad is None:
        return [whole]
    heard = vad.detect(resample(audio, vad.info.sample_rate))
    grown = union(Span(s.start - _SPEECH_PAD_S, s.end + _SPEECH_PAD_S) for s in heard)
    return intersect(grown, [whole])


def _islands(speech: Sequence[Span], duration: float, longest_silence_s: float) -> list[Span]:
    """Speech with its short silences, those at the edges too: what is read."""
    islands = fill_gaps(speech, longest_silence_s)
    if islands and islands[0].start <= longest_silence_s:
        islands[0] = Span(0.0, islands[0].end)
    if islands and duration - islands[-1].end <= longest_silence_s:
        islands[-1] = Span(islands[-1].start, duration)
    return islands


def _placed(
    window: Window, heard: Heard, aligner: AlignmentEngine | None, language: str | None
) -> list[Word]:
    """The words of a window on the recording's clock, those in silence dropped."""
    spoken = language or heard.language
    texts = heard.words
    if aligner is not None and (spoken is None or not _reads(aligner.info, spoken)):
        aligner = None  # the recogniser's own times are all there are
    placed = list(texts)
    if aligner is not None:
        aligned = place_words(window.audio, [w.text for w in texts], aligner, 0.0)
        if not all(w.interpolated for w in aligned):  # else it failed: the recogniser knows better
            placed = aligned
    # A recogniser that knows how likely its words are knows better than the aligner (measured:
    # area under the curve .88 against .66 on noisy speech).
    words = [
        word if text.score is None else replace(word, score=text.score)
        for text, word in zip(texts, placed, strict=True)
    ]
    kept = [w for w in words if w.interpolated or not in_silence(w, window.speech)]
    if len(kept) < len(words):
        log.info("%.1f s: %d words in silence dropped", window.start, len(words) - len(kept))
    return [
        replace(w, start=w.start + window.start, end=w.end + window.start)
        for w in (drawn_in(w, window.speech) for w in kept)
    ]


def _with_margins(
    stretch: Stretch, others: Sequence[Turn], margin_s: float, stream: AudioSource
) -> tuple[float, float]:
    """The stretch grown by the margin, but not into anybody else's turn."""
    length_s = stream.frames / stream.sample_rate
    busy = union(Span(t.start, t.end) for t in others)
    start = max(0.0, stretch.start - margin_s)
    end = min(length_s, stretch.end + margin_s)
    for span in intersect(busy, [Span(start, stretch.start)]):
        start = max(start, span.end)
    for span in intersect(busy, [Span(min(stretch.end, end), end)]):
        end = min(end, span.start)
    return start, end


def _in_order(words: Sequence[Word], start: float, end: float) -> list[Word]:
    result: list[Word] = []
    at = start
    for word in words:
        first = min(max(word.start, at), end)
        last = min(max(word.end, first), end)
        result.append(replace(word, start=first, end=last))
        at = last
    return result


def _utterances(
    words: Sequence[Word],
    stretch: Stretch,
    params: TranscribeParams,
    stem: str | None,
    told: _Told,
) -> list[Utterance]:
    """Words gathered into utterances: a new one after a pause, or at the end of a sentence."""
    groups: list[list[Word]] = []
    for word in words:
        previous = groups[-1][-1] if groups else None
        if previous is not None:
            gap = word.start - previous.end
            sentence = ends_sentence(previous) and gap >= _SENTENCE_PAUSE_S
        if previous is None or gap >= params.pause_s or sentence:
            groups.append([])
        groups[-1].append(word)
    return [_utterance(group, stretch, params, stem, told) for group in groups]


def _utterance(
    words: Sequence[Word],
    stretch: Stretch,
    params: TranscribeParams,
    stem: str | None,
    told: _Told,
) -> Utterance:
    span = Span(words[0].start, words[-1].end)
    turn = owner(span, stretch.turns)
    scores = [w.score for w in words if w.score is not None]
    return Utterance(
        id="",
        recording=turn.recording,
        start=span.start,
        end=span.end,
        text=" ".join(w.text for w in words),
        speaker=stretch.speaker,
        turn=turn.id,
        language=told.language if params.language == "auto" else params.language,
        score=round(sum(scores) / len(scores), 4) if scores else 0.0,
        stem=stem,
        words=tuple(words),
        extra=_extra(words, told),
    )


def _extra(words: Sequence[Word], told: _Told) -> dict[str, object] | None:
    """What is doubtful, and the engine that stepped in for the one that was asked."""
    extra = dict(flags(words, sorted(told.doubts)) or {})
    if told.engine:
        extra["engine"] = told.engine
    return extra or None


def _numbered(utterances: Sequence[Utterance]) -> list[Utterance]:
    ordered = sorted(utterances, key=lambda u: (u.start, u.end, u.speaker or ""))
    return [replace(u, id=f"u{n:04d}") for n, u in enumerate(ordered, start=1)]


def transcript_metrics(
    utterances: Sequence[Utterance], low_confidence: float = TranscribeParams().low_confidence
) -> list[Metric]:
    """Words per second of speech, shares of doubtful and untimed words, utterances with flags."""
    words = [w for u in utterances for w in (u.words or ())]
    speech = sum(u.end - u.start for u in utterances)
    doubtful = sum(w.score is None or w.score < low_confidence for w in words)
    flagged = sum(bool(u.extra) for u in utterances)
    untimed = sum(bool(w.interpolated) for w in words)
    return [
        Metric("words", float(len(words)), "words", n=len(utterances)),
        Metric("words_per_second", len(words) / speech if speech else 0.0, "words/s"),
        Metric("low_confidence_share", doubtful / len(words) if words else 0.0, "share"),
        Metric("interpolated_share", untimed / len(words) if words else 0.0, "share"),
        Metric("flagged_utterances", float(flagged), "utterances", n=len(utterances)),
    ]
