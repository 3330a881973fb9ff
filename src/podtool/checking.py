"""What `podtool check` looks at: rows and what they refer to, audio, run directories.

Nothing here raises for what it finds: every problem becomes a Finding, so that one look shows all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal

from podtool.artifacts import (
    Embedding,
    Placement,
    Recording,
    Row,
    Segment,
    Speaker,
    Stem,
    Take,
    Turn,
    Utterance,
    Voice,
)
from podtool.corrections import UNKNOWN, settled_lines
from podtool.errors import CheckFailed, InputError, PodtoolError
from podtool.rowio import decode

Severity = Literal["error", "warning", "note"]
_WORD_SLACK_S = 0.001
_NORM_SLACK = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a file; `exit_code` is what it alone would end a check with."""

    path: str
    severity: Severity
    message: str
    line: int | None = None
    exit_code: int = 0
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a file holds, in words, and what was found in it."""

    path: str
    holds: str
    findings: tuple[Finding, ...] = ()

    def count(self, severity: Severity) -> int:
        return sum(f.severity == severity for f in self.findings)


def verdict(reports: Sequence[Report], strict: bool = False) -> PodtoolError | None:
    """The error that a check ends with: InputError where something cannot be read, CheckFailed
    where something is wrong (`strict`: or odd), None where all is well."""
    found = [f for r in reports for f in r.findings]
    errors = [f for f in found if f.severity == "error"]
    if any(f.exit_code == InputError.exit_code for f in errors):
        first = next(f for f in errors if f.exit_code == InputError.exit_code)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return InputError(f"{located(first)}{more}", first.hint)
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return CheckFailed(f"{located(errors[0])}{more}", errors[0].hint)
    odd = [f for f in found if f.severity == "warning"]
    if strict and odd:
        return CheckFailed(f"{len(odd)} warnings, the first: {located(odd[0])}")
    return None


def located(finding: Finding) -> str:
    line = f", line {finding.line}" if finding.line else ""
    return f"{finding.path}{line}: {finding.message}"


def check(name: str, stdin: Callable[[], BinaryIO], files: bool = True) -> list[Report]:
    """Look at one path or stdin; a run directory gives a report for each of its stages.

    `files`: also read the audio that rows refer to and compare its sha256.
    """
    from podtool.formats import format_of, read_file
    from podtool.inputs import rows_or_path

    try:
        path = Path(name)
        if name != "-" and path.is_dir():
            return check_run(path, files)
        format_ = format_of(name) if name != "-" else None
        if format_ is not None and format_.read is not None:
            rows = read_file(path, format_)
            return [_report(name, list(enumerate(rows, 1)), files, numbered=False)]
        if name == "-" or not _looks_like_rows(path):
            found, path = rows_or_path(name, stdin, as_written=True)
            if found is None:
                return [check_audio(path)]
            return [_report("stdin", list(enumerate(found, 1)), files)]
        return [check_rows(path, files)]
    except PodtoolError as error:
        return [Report(name, "", (_broken(name, error),))]


def _looks_like_rows(path: Path) -> bool:
    if path.suffix == ".jsonl":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    except OSError:
        return False


def _broken(path: str, error: PodtoolError, line: int | None = None) -> Finding:
    return Finding(path, "error", error.message, line, error.exit_code, error.hint)


# ---------------------------------------------------------------- rows


def check_rows(path: Path, files: bool = True) -> Report:
    """Every line of a JSONL file, and what the rows say of each other and of files."""
    name = str(path)
    rows: list[tuple[int, Row]] = []
    broken: list[Finding] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        return Report(name, "", (_broken(name, InputError(f"cannot read: {error.strerror}")),))
    for number, data in enumerate(lines, 1):
        if not data.strip():
            continue
        try:
            rows.append((number, decode(data.decode("utf-8"), "row", path.parent)))
        except UnicodeDecodeError:
            broken.append(_broken(name, InputError("not UTF-8 text"), number))
        except InputError as error:
            message = error.message.removeprefix("row: ")
            broken.append(_broken(name, InputError(message, error.hint), number))
    report = _report(name, rows, files)
    return Report(name, report.holds, (*broken, *report.findings))


def _report(
    name: str, rows: Sequence[tuple[int, Row]], files: bool, numbered: bool = True
) -> Report:
    found = [
        Finding(
            name,
            severity,
            message,
            line if numbered else None,
            CheckFailed.exit_code if severity == "error" else 0,
        )
        for line, severity, message in _problems(rows, files, numbered)
    ]
    counts = Counter(row.kind or "unknown" for _, row in rows)
    holds = ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no rows"
    return Report(name, holds, tuple(sorted(found, key=lambda f: f.line or 0)))


Problem = tuple[int, Severity, str]
Numbered = Sequence[tuple[int, Row]]


def _problems(rows: Numbered, files: bool, numbered: bool) -> Iterator[Problem]:
    rows = settled_lines(rows)
    yield from _ids(rows)
    yield from _references(rows, numbered)
    yield from _times(rows)
    yield from _overlaps(rows)
    yield from _values(rows)
    if files:
        yield from _files(rows)


def _ids(rows: Numbered) -> Iterator[Problem]:
    seen: dict[tuple[str, str, str], int] = {}
    for line, row in rows:
        if isinstance(row, (Recording, Turn, Utterance, Speaker, Stem, Take, Voice)):
            # Two recordings may both have an S1.
            scope = row.recording if isinstance(row, Speaker) else ""
            first = seen.setdefault((row.kind, scope, row.id), line)
            if first != line:
                yield line, "error", f"{row.kind} {row.id!r} is there already in line {first}"


def _references(rows: Numbered, numbered: bool) -> Iterator[Problem]:
    """What a row names must be in the file, wherever the file has rows of that kind at all."""
    of: dict[str, set[str]] = {}
    for _, row in rows:
        if isinstance(row, (Recording, Turn, Utterance, Stem, Take, Voice)):
            of.setdefault(row.kind, set()).add(row.id)
        elif isinstance(row, Speaker):
            of.setdefault("speaker", set()).add(f"{row.recording}/{row.id}")
    for line, row in rows:
        for kind, wanted in _wanted(row):
            name = f"{getattr(row, 'recording', '')}/{wanted}" if kind == "speaker" else wanted
            if kind in of and name not in of[kind]:
                yield line, "error", f"{row.kind} refers to {kind} {wanted!r}, which is not here"
    timed = any(isinstance(r, (Turn, Utterance, Segment, Take)) for _, r in rows)
    if timed and numbered and "recording" not in of:
        yield 1, "warning", "there is no recording row: times and audio cannot be compared"


def _wanted(row: Row) -> Iterator[tuple[str, str]]:
    recording = getattr(row, "recording", None)
    if isinstance(recording, str):
        yield "recording", recording
    if isinstance(row, (Turn, Utterance, Take)) and row.speaker not in (None, UNKNOWN):
        yield "speaker", str(row.speaker)
    if isinstance(row, (Utterance, Take)) and row.turn is not None:
        yield "turn", row.turn
    if isinstance(row, Take):
        yield "voice", row.voice
        if row.utterance is not None:
            yield "utterance", row.utterance
    if isinstance(row, Placement):
        if row.take is not None:
            yield "take", row.take
        if row.stem is not None:
            yield "stem", row.stem


def _times(rows: Numbered) -> Iterator[Problem]:
    durations = {r.id: (r.duration, r.sample_rate) for _, r in rows if isinstance(r, Recording)}
    for line, row in rows:
        if isinstance(row, (Turn, Utterance, Segment, Take, Placement)):
            length, rate = durations.get(row.recording, (math.inf, 1))
            if row.end > length + 1 / rate + 1e-6:
                yield (
                    line,
                    "error",
                    f"{row.kind} ends at {row.end:.3f} s, after the recording ({length:.3f} s)",
                )
        if isinstance(row, Utterance):
            yield from ((line, "error", text) for text in _words(row))
        if isinstance(row, Take):
            yield from ((line, "error", text) for text in _slot(row))


def _words(row: Utterance) -> Iterator[str]:
    words = row.words or ()
    for word in words:
        if word.end < word.start:
            yield f"the word {word.text!r} of {row.id} ends before it starts"
        if word.start < row.start - _WORD_SLACK_S or word.end > row.end + _WORD_SLACK_S:
            yield (
                f"the word {word.text!r} ({word.start:.3f} to {word.end:.3f} s) lies outside of "
                f"{row.id} ({row.start:.3f} to {row.end:.3f} s)"
            )
    for a, b in pairwise(words):
        if b.start < a.start:
            yield f"the word {b.text!r} of {row.id} starts before the word ahead of it"


def _overlaps(rows: Numbered) -> Iterator[Problem]:
    """One speaker cannot say two things at once; two turns at once are only odd."""
    own: dict[tuple[str, str, str], list[tuple[int, Turn | Utterance]]] = {}
    for line, row in rows:
        if isinstance(row, (Turn, Utterance)) and row.speaker not in (None, UNKNOWN):
            own.setdefault((row.kind, row.recording, str(row.speaker)), []).append((line, row))
    for (kind, _, speaker), items in own.items():
        items.sort(key=lambda item: (item[1].start, item[1].end))
        latest = items[0][1]
        for line, row in items[1:]:
            if row.start < latest.end - 1e-6:
                severity: Severity = "error" if kind == "utterance" else "warning"
                yield line, severity, f"{row.id} overlaps {latest.id} of the same speaker {speaker}"
            if row.end > latest.end:
                latest = row


def _values(rows: Numbered) -> Iterator[Problem]:
    for line, row in rows:
        score = getattr(row, "score", None)
        if isinstance(score, float) and not 0 <= score <= 1:
            yield line, "error", f"the score {score:g} is not between 0 and 1"
        embedding = getattr(row, "embedding", None)
        if isinstance(embedding, Embedding):
            norm = math.sqrt(sum(x * x for x in embedding.vector))
            if abs(norm - 1) > _NORM_SLACK:
                yield line, "error", f"the embedding has the norm {norm:.3f} instead of 1"
        if isinstance(row, Voice) and not row.consent.statement.strip():
            yield line, "error", f"the voice {row.id} has an empty statement of consent"


def _slot(row: Take) -> Iterator[str]:
    """A conversion is as long as what it replaces; what is kept lies inside of the slot."""
    length = row.frames / row.sample_rate
    slot = row.end - row.start
    if row.method == "convert" and abs(length - slot) > 2 / row.sample_rate:
        yield f"take {row.id} is {length:.3f} s long, its slot {slot:.3f} s"
    for start, end in row.keep or ():
        if not row.start - 1e-6 <= start <= end <= row.end + 1e-6:
            yield f"take {row.id} keeps {start:.3f} to {end:.3f} s, which is not in its slot"


def _files(rows: Numbered) -> Iterator[Problem]:
    from podtool.audio import sha256_of

    digests: dict[str, str] = {}
    for line, row in rows:
        if not isinstance(row, (Recording, Stem, Take, Voice)):
            continue
        path = Path(row.path)
        if not path.is_file():
            yield line, "error", f"the file of {row.kind} {row.id!r} is missing: {path}"
            continue
        try:
            digest = digests.setdefault(row.path, "") or sha256_of(path)
        except OSError as error:
            yield line, "error", f"cannot read {path}: {error.strerror}"
            continue
        digests[row.path] = digest
        if digest != row.sha256:
            yield line, "error", f"{path} has changed since the row was written (sha256 differs)"
        elif not isinstance(row, Voice):
            yield from ((line, "error", text) for text in _header(row, path))


def _header(row: Recording | Stem | Take, path: Path) -> Iterator[str]:
    from podtool.audio import open_audio

    try:
        with open_audio(path) as audio:
            facts = {
                "sample_rate": audio.sample_rate,
                "channels": audio.channels,
                "frames": audio.frames,
            }
    except PodtoolError as error:
        yield error.message
        return
    for name, value in facts.items():
        said = getattr(row, name)
        if said != value:
            yield f"{path} has {name} {value}, the row says {said}"


# ---------------------------------------------------------------- audio


def check_audio(path: Path) -> Report:
    """Decode a whole file, and what is odd about it. Problems are findings, not exceptions."""
    from podtool.audio import open_audio
    from podtool.inspection import inspect, oddities

    name = str(path)
    try:
        with open_audio(path) as audio:
            facts = inspect(audio)
    except PodtoolError as error:
        return Report(name, "", (_broken(name, error),))
    found = [Finding(name, "warning", text) for text in oddities(facts)]
    holds = (
        f"audio: {facts.duration_s:.2f} s, {facts.sample_rate} Hz, {facts.channels} channels, "
        f"peak {20 * math.log10(max(facts.peak, 1e-6)):.1f} dBFS"
    )
    return Report(name, holds, tuple(found))


# ---------------------------------------------------------------- run directories


def check_run(folder: Path, files: bool = True) -> list[Report]:
    """Every finished stage of a run directory against the hashes in its done.json.

    Rows edited by hand are notes (the run uses them); audio that changed is an error.
    """
    from podtool.rundir import DONE

    name = str(folder)
    stages = sorted(p.parent for p in folder.glob(f"*/{DONE}") if not p.parent.suffix)
    if not stages:
        error = InputError(
            f"{folder} is a folder without finished stages", "Name a file, or a run directory."
        )
        return [Report(name, "", (_broken(name, error),))]
    reports = [_stage(stage, files) for stage in stages]
    leftovers = [p.name for p in folder.iterdir() if p.suffix in (".part", ".old", ".gone")]
    notes = [
        Finding(name, "note", f"{left} is left over from a run that was interrupted")
        for left in sorted(leftovers)
    ]
    holds = f"run directory: {', '.join(s.name for s in stages)}"
    return [Report(name, holds, tuple(notes)), *reports]


def _stage(folder: Path, files: bool) -> Report:
    from podtool.audio import sha256_of
    from podtool.rundir import read_done

    name = str(folder)
    done = read_done(folder)
    if done is None:
        return Report(name, "", (_broken(name, InputError("done.json cannot be read")),))
    found: list[Finding] = []
    for output, digest in sorted(done.outputs.items()):
        path = folder / output
        if not path.is_file():
            found.append(_damage(name, f"{output} is missing; the next run makes it again"))
            continue
        if path.suffix == ".jsonl":
            found += check_rows(path, files).findings
        if files and sha256_of(path) != digest:
            if path.suffix == ".jsonl":
                found.append(Finding(str(path), "note", "edited by hand: the run uses it as it is"))
            else:
                found.append(_damage(name, f"{output} has changed; the next run makes it again"))
    return Report(name, f"stage: {len(done.outputs)} files", tuple(found))


def _damage(path: str, message: str) -> Finding:
    return Finding(path, "error", message, None, CheckFailed.exit_code)
