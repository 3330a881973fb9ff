"""What `podtool evaluate` measures: one side against its reference, as metric rows.

A side is rows, a file of an exchange format, plain text, or audio. Everything that both sides
allow is measured; what was asked for by name and cannot be measured is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from podtool import metrics
from podtool.artifacts import Metric, Recording, Row, Turn, Utterance, Voice, Word
from podtool.errors import EngineUnavailableError, InputError, ModelError, UsageError
from podtool.formats import format_of, read_file, text_of
from podtool.inputs import rows_or_path
from podtool.resample import at_rate
from podtool.rowio import of_kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from podtool.audio import AudioFile, AudioSource
    from podtool.engines.protocols import EmbeddingEngine

ROW_MEASURES = ("der", "jer", "wer", "cer", "cpwer", "tcpwer", "timing")
AUDIO_MEASURES = ("si_sdr", "similarity", "loudness")
MEASURES = (*ROW_MEASURES, *AUDIO_MEASURES)
_WINDOW_S = 5.0  # of an embedding; the mean over the file is compared
_QUIET_DB = -50.0  # windows this far under the loudest hold no voice


@dataclass(frozen=True, slots=True)
class Side:
    """One input of a comparison; exactly one of rows, text and audio is there."""

    name: str
    rows: list[Row] | None = None
    text: str | None = None
    audio: Path | None = None

    @property
    def kind(self) -> str:
        return "audio" if self.audio else "text" if self.text is not None else "rows"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to score. `collar_s` is of DER and JER, on either side; `word_collar_s` of tcpWER."""

    measures: tuple[str, ...] = ()
    collar_s: float = metrics.COLLAR_S
    word_collar_s: float = metrics.WORD_COLLAR_S
    skip_overlap: bool = False
    mixture: Path | None = None
    load_embedding: Callable[[], EmbeddingEngine] | None = None


@dataclass(slots=True)
class Result:
    """Metric rows, and a line for each thing that was not measured and why."""

    rows: list[Metric] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, name: str, value: float, unit: str, subject: str | None, n: int | None = None,
        **extra: object,
    ) -> None:  # fmt: skip
        self.rows.append(Metric(name, float(value), unit, subject, n, dict(extra) or None))

    @property
    def overall(self) -> dict[str, float]:
        """name -> value of the rows that speak of everything."""
        values = {r.name: r.value for r in self.rows}
        values.update({r.name: r.value for r in self.rows if r.subject is None})
        return values


def open_side(name: str, stdin: Callable[[], BinaryIO]) -> Side:
    """An input as a side: its format is told by its name, rows and audio by their first bytes."""
    format_ = format_of(name) if name != "-" else None
    if format_ is not None and format_.read is None:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {name}: {error.strerror}") from None
        return Side(name, text=text_of(data, name))
    if format_ is not None:
        return Side(name, rows=read_file(name, format_))
    if name != "-" and not Path(name).exists():
        raise InputError(f"{name} does not exist")
    rows, path = rows_or_path(name, stdin)
    return Side(name, rows=rows) if rows is not None else Side(name, audio=path)


def evaluate(found: Side, reference: Side, settings: Settings) -> Result:
    """Measure one side against its reference.

    Raises UsageError for an unknown measure, InputError for sides that have nothing in common or
    a measure asked for by name that they do not allow.
    """
    for name in settings.measures:
        if name not in MEASURES:
            raise UsageError(f"there is no measure {name!r}", f"Measures: {', '.join(MEASURES)}.")
    if found.kind == "audio":
        return _audio(found, reference, settings)
    if reference.kind == "audio":
        raise InputError(
            f"{found.name} holds {found.kind} and its reference {reference.name} is audio",
            "Compare audio with audio, and rows with rows.",
        )
    return _rows(found, reference, settings)


# ---------------------------------------------------------------- rows


@dataclass(frozen=True, slots=True)
class Pair:
    """Reference and found rows of one recording."""

    subject: str
    reference: list[Row]
    found: list[Row]
    duration_s: float | None

    def turns(self) -> tuple[list[Turn], list[Turn]]:
        """Turns of both sides, or the spans of utterances where there are none."""
        reference, found = _turns(self.reference), _turns(self.found)
        if not reference:
            raise InputError(f"the reference of {self.subject} has no turns")
        if not found and of_kind(self.found, Utterance):
            raise InputError(f"the utterances of {self.subject} have no speakers")
        return reference, found

    def utterances(self) -> tuple[list[Utterance], list[Utterance]]:
        reference = of_kind(self.reference, Utterance)
        found = of_kind(self.found, Utterance)
        if not reference:
            raise InputError(f"the reference of {self.subject} has no utterances")
        if not found and of_kind(self.found, Turn):
            raise InputError(f"{self.subject} has turns and no utterances")
        return reference, found


def _turns(rows: Sequence[Row]) -> list[Turn]:
    turns = of_kind(rows, Turn)
    if turns:
        return turns
    said = of_kind(rows, Utterance)
    return [Turn(u.id, u.recording, u.start, u.end, u.speaker) for u in said if u.speaker]


def _pairs(found: list[Row], reference: list[Row], notes: list[str]) -> list[Pair]:
    """The recordings of the reference with what was found of each.

    Where both sides speak of one recording they belong together whatever it is called.
    """
    theirs, ours = _by_recording(reference), _by_recording(found)
    durations = {
        r.id: r.duration for r in [*of_kind(reference, Recording), *of_kind(found, Recording)]
    }
    if len(theirs) == 1 and len(ours) <= 1:
        (name, rows), *_ = theirs.items()
        own, mine = next(iter(ours.items()), (name, []))
        lengths = [durations[n] for n in (name, own) if n in durations]
        return [Pair(own, rows, mine, max(lengths, default=None))]
    if ours and not theirs.keys() & ours.keys():
        raise InputError(
            f"the reference speaks of {', '.join(sorted(theirs)) or 'no recording'}, "
            f"what was found of {', '.join(sorted(ours))}",
        )
    for name in sorted(ours.keys() - theirs.keys()):
        notes.append(f"{name} has no reference and is not scored")
    for name in sorted(theirs.keys() - ours.keys()):
        notes.append(f"nothing was found of {name}: scored as empty")
    return [Pair(n, rows, ours.get(n, []), durations.get(n)) for n, rows in sorted(theirs.items())]


def _by_recording(rows: Sequence[Row]) -> dict[str, list[Row]]:
    result: dict[str, list[Row]] = {}
    for row in rows:
        if isinstance(row, (Turn, Utterance)):
            result.setdefault(row.recording, []).append(row)
    return result


def _rows(found: Side, reference: Side, settings: Settings) -> Result:
    result = Result()
    if found.kind == "text" or reference.kind == "text":
        pairs = [_text_pair(found, reference)]
        possible: tuple[str, ...] = ("wer", "cer")
    else:
        pairs = _pairs(found.rows or [], reference.rows or [], result.notes)
        possible = ROW_MEASURES
    measures = settings.measures or [m for m in possible if _worth_trying(m, reference)]
    for name in measures:
        if name not in possible:
            raise InputError(f"{name} cannot be measured between {found.kind} and {reference.kind}")
        try:
            _ROWS[name](pairs, settings, result)
        except InputError as error:
            if settings.measures:
                raise
            result.notes.append(f"no {name}: {error.message}")
    if not result.rows:
        raise InputError("nothing could be measured: " + "; ".join(result.notes))
    return result


def _worth_trying(measure: str, reference: Side) -> bool:
    """Whether the reference speaks of what a measure compares; a note would be noise if not."""
    if reference.rows is None:
        return True
    said = of_kind(reference.rows, Utterance)
    if measure in ("der", "jer"):
        return bool(_turns(reference.rows))
    if measure in ("cpwer", "tcpwer"):
        return any(u.speaker for u in said)
    return any(u.words for u in said) if measure == "timing" else bool(said)


def _text_pair(found: Side, reference: Side) -> Pair:
    sides = [_as_utterances(side) for side in (reference, found)]
    return Pair(Path(found.name).stem, sides[0], sides[1], None)


def _as_utterances(side: Side) -> list[Row]:
    if side.text is not None:
        return [Utterance("u0001", "text", 0.0, 0.0, side.text)]
    return [*of_kind(side.rows or [], Utterance)]


def _subjects(pairs: Sequence[Pair]) -> Iterator[tuple[Pair, str | None]]:
    """Each pair with the subject of its row: none where there is one recording only."""
    for pair in pairs:
        yield pair, pair.subject if len(pairs) > 1 else None


def _der(pairs: Sequence[Pair], settings: Settings, result: Result) -> None:
    scores = []
    how = {"collar_s": settings.collar_s, "overlap": not settings.skip_overlap}
    for pair, subject in _subjects(pairs):
        score = _diarization(pair, settings)
        scores.append(score)
        if subject:
            result.add("der", score.der, "ratio", subject, score.reference_speakers, **how)
    total = sum(s.total_s for s in scores)
    parts = {
        "der_missed": sum(s.missed_s for s in scores) / total,
        "der_false_alarm": sum(s.false_alarm_s for s in scores) / total,
        "der_confusion": sum(s.confusion_s for s in scores) / total,
    }
    result.add("der", sum(parts.values()), "ratio", None, None, **how)
    for name, value in parts.items():
        result.add(name, value, "ratio", None, None, **how)
    result.add("scored_speech", total, "s", None)
    wrong = sum(abs(s.reference_speakers - s.found_speakers) for s in scores)
    result.add("speakers_reference", sum(s.reference_speakers for s in scores), "speakers", None)
    result.add("speakers_found", sum(s.found_speakers for s in scores), "speakers", None)
    result.add("speaker_count_error", wrong, "speakers", None)


def _jer(pairs: Sequence[Pair], settings: Settings, result: Result) -> None:
    scores = [_diarization(pair, settings) for pair in pairs]
    how = {"collar_s": settings.collar_s, "overlap": not settings.skip_overlap}
    for (_, subject), score in zip(_subjects(pairs), scores, strict=True):
        if subject:
            result.add("jer", score.jer, "ratio", subject, score.reference_speakers, **how)
    speakers = sum(s.reference_speakers for s in scores)
    mean = sum(s.jer * s.reference_speakers for s in scores) / speakers
    result.add("jer", mean, "ratio", None, speakers, **how)


def _diarization(pair: Pair, settings: Settings) -> metrics.DiarizationScore:
    reference, found = pair.turns()
    return metrics.diarization(
        reference, found, pair.duration_s, settings.collar_s, settings.skip_overlap
    )


def _words(
    name: str, score: Callable[[Pair, Settings], metrics.WordScore], **extra: object
) -> Callable[[Sequence[Pair], Settings, Result], None]:
    def measure(pairs: Sequence[Pair], settings: Settings, result: Result) -> None:
        how = dict(extra)
        if name == "tcpwer":
            how["collar_s"] = settings.word_collar_s
        total = metrics.WordScore(0, 0, 0, 0)
        for pair, subject in _subjects(pairs):
            one = score(pair, settings)
            total += one
            if subject:
                result.add(name, one.rate, "ratio", subject, one.length, **how)
        counts = {k: getattr(total, k) for k in ("substitutions", "deletions", "insertions")}
        result.add(name, total.rate, "ratio", None, total.length, **how, **counts)

    return measure


def _texts(pair: Pair) -> tuple[str, str]:
    reference, found = pair.utterances()
    return metrics.full_text(reference), metrics.full_text(found)


def _timing(pairs: Sequence[Pair], settings: Settings, result: Result) -> None:
    reference: list[tuple[Word, float]] = []
    found: list[tuple[Word, float]] = []
    offset = 0.0  # recordings one after the other on one clock, so that words stay in order
    for pair in pairs:
        sides = pair.utterances()
        for side, words in zip(sides, (reference, found), strict=True):
            words += [(w, offset) for u in side for w in u.words or ()]
        offset += 1e6
    if not reference or not found:
        raise InputError("word times are needed on both sides")
    shifted = [
        [replace(w, start=w.start + by, end=w.end + by) for w, by in side]
        for side in (reference, found)
    ]
    score = metrics.word_timing(shifted[0], shifted[1])
    result.add("word_start_error", score.start_mean_s, "s", None, score.matched)
    result.add("word_start_error_median", score.start_median_s, "s", None, score.matched)
    result.add("word_start_error_p95", score.start_p95_s, "s", None, score.matched)
    result.add("word_end_error", score.end_mean_s, "s", None, score.matched)
    result.add("words_matched", score.matched / score.length, "ratio", None, score.length)


_ROWS: dict[str, Callable[[Sequence[Pair], Settings, Result], None]] = {
    "der": _der,
    "jer": _jer,
    "wer": _words("wer", lambda p, s: metrics.word_errors(*_texts(p))),
    "cer": _words("cer", lambda p, s: metrics.character_errors(*_texts(p))),
    "cpwer": _words("cpwer", lambda p, s: metrics.cp_word_errors(*p.utterances())),
    "tcpwer": _words(
        "tcpwer", lambda p, s: metrics.tcp_word_errors(*p.utterances(), s.word_collar_s)
    ),
    "timing": _timing,
}


# ---------------------------------------------------------------- audio


def _audio(found: Side, reference: Side, settings: Settings) -> Result:
    from podtool.audio import open_audio

    result = Result()
    measures = settings.measures or AUDIO_MEASURES
    for name in measures:
        if name not in AUDIO_MEASURES:
            raise InputError(f"{name} cannot be measured on audio")
    assert found.audio is not None
    with ExitStack() as stack:
        ours = stack.enter_context(open_audio(found.audio))
        theirs = stack.enter_context(open_audio(reference.audio)) if reference.audio else None
        for name in measures:
            try:
                if name == "similarity":
                    _similarity(ours, theirs, reference, settings, result)
                elif theirs is None:
                    raise InputError(f"the reference {reference.name} is not audio")
                elif name == "si_sdr":
                    _si_sdr(ours, theirs, settings, result)
                else:
                    _loudness(ours, theirs, result)
            except (InputError, ModelError, EngineUnavailableError) as error:
                if settings.measures:
                    raise
                result.notes.append(f"no {name}: {error.message}")
    if not result.rows:
        raise InputError("nothing could be measured: " + "; ".join(result.notes))
    return result


def _si_sdr(ours: AudioFile, theirs: AudioFile, settings: Settings, result: Result) -> None:
    from podtool.audio import open_audio

    how: dict[str, Any] = {} if ours.channels == theirs.channels else {"channels": "mixed down"}
    value = metrics.si_sdr(*_alike(theirs, ours))
    result.add("si_sdr", value, "dB", None, **how)
    if settings.mixture is not None:
        with open_audio(settings.mixture) as mixture:
            before = metrics.si_sdr(*_alike(theirs, mixture))
        result.add("si_sdr_improvement", value - before, "dB", None, **how)


def _alike(a: AudioFile, b: AudioFile) -> tuple[AudioSource, AudioSource]:
    """Both as they are, or both mixed down where only one is stereo."""
    if a.channels == b.channels:
        return a, b
    return at_rate(a, a.sample_rate), at_rate(b, b.sample_rate)


def _loudness(ours: AudioFile, theirs: AudioFile, result: Result) -> None:
    from podtool.loudness import measure

    own, other = measure(ours), measure(theirs)
    result.add("lufs", own.integrated_lufs, "LUFS", None)
    result.add("lufs_reference", other.integrated_lufs, "LUFS", None)
    result.add("lufs_difference", abs(own.integrated_lufs - other.integrated_lufs), "LU", None)
    result.add("true_peak", own.true_peak_dbtp, "dBTP", None)
    result.add("true_peak_reference", other.true_peak_dbtp, "dBTP", None)


def _similarity(
    ours: AudioFile, theirs: AudioFile | None, reference: Side, settings: Settings, result: Result
) -> None:
    import numpy as np

    if settings.load_embedding is None:
        raise InputError("no embedding engine was given")
    engine = settings.load_embedding()
    if theirs is not None:
        wanted = embedding_of(theirs, engine)
    else:
        voices = [v for v in of_kind(reference.rows or [], Voice) if v.embedding]
        if not voices or voices[0].embedding is None:
            raise InputError(f"{reference.name} holds no voice with an embedding")
        if voices[0].embedding.model != engine.info.name:
            raise InputError(
                f"the voice has an embedding of {voices[0].embedding.model}, "
                f"not of {engine.info.name}",
                f"Give --engine {voices[0].embedding.model}.",
            )
        wanted = np.array(voices[0].embedding.vector, np.float32)
    value = metrics.similarity(embedding_of(ours, engine), wanted)
    result.add("similarity", value, "cosine", None, None, engine=engine.info.name)


def embedding_of(source: AudioSource, engine: EmbeddingEngine) -> NDArray[np.float32]:
    """The voice of a whole recording of one person, (dim,) of unit norm: the mean over windows of
    five seconds that are not silent. Raises InputError for silence."""
    import numpy as np

    from podtool.audio import blocks

    mono = at_rate(source, engine.info.sample_rate)
    windows = [b for _, b in blocks(mono, _WINDOW_S)]
    powers = np.array([float(np.mean(b.samples**2, dtype=np.float64)) for b in windows])
    if not len(powers) or powers.max() <= 1e-10:
        raise InputError("a silent recording has no voice to compare")
    loud = powers >= powers.max() * 10 ** (_QUIET_DB / 10)
    least = round(0.5 * mono.sample_rate)
    chosen = [b for b, ok in zip(windows, loud, strict=True) if ok and b.frames >= least]
    if not chosen:  # shorter than half a second
        chosen = [windows[int(powers.argmax())]]
    mean = np.sum([b.frames * engine.embed(b) for b in chosen], axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)
