"""The rows: one frozen dataclass per kind is both the in-memory type and the schema of the JSONL.

Times are seconds on the recording's clock, `end` exclusive. Absent values are None and are not
written. `docs/artifacts.md` describes each kind for people who read or edit the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

Extra = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit vector that describes a voice, and the model whose space it lives in."""

    model: str
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio file on one clock; sha256 is of the file's bytes."""

    kind: ClassVar[str] = "recording"
    version: ClassVar[int] = 1
    id: str
    path: str
    sha256: str
    sample_rate: int
    channels: int
    frames: int
    extra: Extra | None = None

    @property
    def duration(self) -> float:
        return self.frames / self.sample_rate


@dataclass(frozen=True, slots=True)
class Segment:
    """An interval without a speaker; label: speech, overlap, music, noise."""

    kind: ClassVar[str] = "segment"
    version: ClassVar[int] = 1
    recording: str
    start: float
    end: float
    label: str
    score: float | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of one speaker talking; score in [0, 1] is the confidence in the speaker."""

    kind: ClassVar[str] = "turn"
    version: ClassVar[int] = 1
    id: str
    recording: str
    start: float
    end: float
    speaker: str
    score: float | None = None
    stem: str | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Speaker:
    """A diarization label within one recording; `name` is set where the person is enrolled."""

    kind: ClassVar[str] = "speaker"
    version: ClassVar[int] = 1
    id: str
    recording: str
    speech_s: float
    overlap_s: float | None = None
    name: str | None = None
    score: float | None = None
    embedding: Embedding | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A token with times inside an utterance; `interpolated` where no aligner vouches for them."""

    text: str
    start: float
    end: float
    score: float | None = None
    interpolated: bool | None = None


@dataclass(frozen=True, slots=True)
class Utterance:
    """A piece of text with times."""

    kind: ClassVar[str] = "utterance"
    version: ClassVar[int] = 1
    id: str
    recording: str
    start: float
    end: float
    text: str
    speaker: str | None = None
    turn: str | None = None
    language: str | None = None
    score: float | None = None
    stem: str | None = None
    words: tuple[Word, ...] | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """What is being said, as far as it is heard by now; a later row of the same id replaces it.

    The first `stable` words were the same in the partial before and are likely to stay. The
    utterance with this id is the last word on it; a partial without text takes it back.
    """

    kind: ClassVar[str] = "partial"
    version: ClassVar[int] = 1
    id: str
    recording: str
    start: float
    end: float
    text: str
    speaker: str | None = None
    stable: int | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """A speaker who turned out to be another one: rows of `source` are `target`'s.

    It holds for rows that start at or after `since`, and before `until` where that is given.
    """

    kind: ClassVar[str] = "correction"
    version: ClassVar[int] = 1
    recording: str
    source: str = field(metadata={"name": "from"})
    target: str = field(metadata={"name": "to"})
    since: float
    until: float | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Stem:
    """One separated source as a file; name: speech, background, speaker:S1."""

    kind: ClassVar[str] = "stem"
    version: ClassVar[int] = 1
    id: str
    recording: str
    name: str
    path: str
    sha256: str
    sample_rate: int
    channels: int
    frames: int
    start: float = 0.0
    speaker: str | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class EnrolmentClip:
    """A stretch of a recording that a voice is built from."""

    recording: str
    start: float
    end: float
    snr_db: float | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """Who agreed to what: free text, kept with the voice."""

    statement: str
    by: str | None = None
    date: str | None = None


@dataclass(frozen=True, slots=True)
class Voice:
    """An enrolled identity usable for conversion or synthesis; `path` is its state file."""

    kind: ClassVar[str] = "voice"
    version: ClassVar[int] = 1
    id: str
    name: str
    engine: str
    path: str
    sha256: str
    sample_rate: int
    consent: Consent
    enrolment: tuple[EnrolmentClip, ...] = ()
    language: str | None = None
    licence: str | None = None
    embedding: Embedding | None = None
    statistics: dict[str, float] | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Take:
    """One synthesis of one turn or utterance; `start`..`end` is the slot that it replaces.

    `checks` holds numbers such as similarity, first_word_drift_ms, tempo.
    """

    kind: ClassVar[str] = "take"
    version: ClassVar[int] = 1
    id: str
    recording: str
    speaker: str
    voice: str
    method: str
    path: str
    sha256: str
    sample_rate: int
    channels: int
    frames: int
    start: float
    end: float
    seed: int = 0
    turn: str | None = None
    utterance: str | None = None
    text: str | None = None
    tempo: float | None = None
    fits: bool | None = None
    keep: tuple[tuple[float, float], ...] | None = None
    checks: dict[str, float] | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """A take or stem put at a time with gain and fades."""

    kind: ClassVar[str] = "placement"
    version: ClassVar[int] = 1
    recording: str
    start: float
    end: float
    take: str | None = None
    stem: str | None = None
    gain_db: float = 0.0
    fade_in_s: float = 0.0
    fade_out_s: float = 0.0
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A number with a unit: what was measured, on what, over how many items."""

    kind: ClassVar[str] = "metric"
    version: ClassVar[int] = 1
    name: str
    value: float
    unit: str
    subject: str | None = None
    n: int | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made the rows that follow; nothing in it differs between two equal runs."""

    kind: ClassVar[str] = "provenance"
    version: ClassVar[int] = 1
    stage: str
    podtool: str
    engine: str | None = None
    models: dict[str, str] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] | None = None
    seed: int | None = None
    key: str | None = None
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Opaque:
    """A row of a kind that this podtool does not know: it passes through untouched."""

    kind: ClassVar[str] = ""
    fields: dict[str, Any]


KnownRow = (
    Recording
    | Segment
    | Turn
    | Speaker
    | Utterance
    | Partial
    | Correction
    | Stem
    | Voice
    | Take
    | Placement
    | Metric
    | Provenance
)
Row = KnownRow | Opaque

ROW_TYPES: dict[str, type[KnownRow]] = {
    t.kind: t
    for t in (
        Recording,
        Segment,
        Turn,
        Speaker,
        Utterance,
        Partial,
        Correction,
        Stem,
        Voice,
        Take,
        Placement,
        Metric,
        Provenance,
    )
}
