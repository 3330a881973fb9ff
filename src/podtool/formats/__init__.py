"""Exchange formats of other programs: RTTM, SRT, VTT, CTM, TextGrid, SegLST, Audacity, text.

Overlapping speech is kept by all of them. Reading is strict: InputError names file and line.
`docs/artifacts.md` says what each format can and cannot hold.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from podtool.artifacts import Row, Speaker, Turn, Utterance
from podtool.errors import InputError, OutputError, UsageError
from podtool.formats import audacity, ctm, plain, rttm, seglst, subtitles, textgrid
from podtool.formats.base import WHAT, Format
from podtool.rowio import of_kind

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("rttm", (".rttm",), "turns", rttm.write, rttm.read),
        Format("srt", (".srt",), "utterances", subtitles.write_srt, subtitles.read_srt),
        Format("vtt", (".vtt",), "utterances", subtitles.write_vtt, subtitles.read_vtt),
        Format("ctm", (".ctm",), "words", ctm.write, ctm.read),
        Format("textgrid", (".textgrid",), "anything", textgrid.write, textgrid.read),
        Format("seglst", (".seglst.json", ".json"), "utterances, turns", seglst.write, seglst.read),
        Format("audacity", (".labels.txt", ".aud"), "anything", audacity.write, audacity.read),
        Format("txt", (".txt",), "text", plain.write),
    )
}


def format_of(path: str | Path) -> Format | None:
    """The format that a file's name ends in, the longest ending first."""
    name = Path(path).name.lower()
    matches = [(len(s), f) for f in FORMATS.values() for s in f.suffixes if name.endswith(s)]
    return max(matches, key=lambda m: m[0])[1] if matches else None


def by_name(name: str) -> Format:
    """Raises UsageError, naming those that exist."""
    if name.lower() not in FORMATS:
        raise UsageError(f"there is no format {name!r}", f"Formats: {', '.join(FORMATS)}.")
    return FORMATS[name.lower()]


def read_file(
    path: str | Path, format_: Format | None = None, recording: str | None = None,
    what: str = "auto",
) -> list[Row]:  # fmt: skip
    """The rows of a file in an exchange format, told by its name unless given.

    `recording` is the id in formats that name none (default: the file's name without suffix).
    Raises InputError.
    """
    path = Path(path)
    if format_ is None:
        format_ = format_of(path)
    if format_ is None:
        raise InputError(
            f"the name of {path} does not tell its format", f"Formats: {', '.join(FORMATS)}."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return read_text(text_of(data, str(path)), str(path), format_, recording or _stem(path), what)


def read_text(
    text: str, name: str, format_: Format, recording: str, what: str = "auto"
) -> list[Row]:
    """The rows of a text in an exchange format. Raises InputError naming `name` and the line."""
    if format_.read is None:
        raise InputError(
            f"{name}: {format_.name} has no times and cannot become rows",
            "`podtool evaluate` takes it as a reference for WER.",
        )
    rows = format_.read(text, name, recording, what)
    if not rows:
        raise InputError(f"{name} holds nothing that a {format_.name} file should hold")
    return rows


def _stem(path: Path) -> str:
    format_ = format_of(path)
    for suffix in sorted(format_.suffixes if format_ else (), key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)] or path.name
    return path.stem


def text_of(data: bytes, name: str) -> str:
    """UTF-8, or UTF-16 where a byte order mark says so (Praat writes it). Raises InputError."""
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}: not UTF-8 text") from None


def write_text(rows: Sequence[Row], format_: Format, what: str = "auto") -> str:
    """Rows in an exchange format. Raises InputError where they do not hold what it needs."""
    if what not in WHAT:
        raise UsageError(f"there is no {what!r} to write", f"Choose from {', '.join(WHAT)}.")
    return format_.write(rows, what)


def write_file(path: str | Path, text: str) -> None:
    """A text file, whole or not at all. Raises OutputError."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}") from None


def with_names(rows: Sequence[Row]) -> list[Row]:
    """Turns and utterances with the names of known people in place of S1, S2.

    A name that two speakers of the recording share stays a label, so that they are kept apart.
    """
    speakers = of_kind(rows, Speaker)
    labels = {(s.recording, s.id) for s in speakers}
    names: dict[tuple[str, str], str] = {}
    for speaker in speakers:
        same = [s for s in speakers if s.recording == speaker.recording and s.name == speaker.name]
        if speaker.name and len(same) == 1 and (speaker.recording, speaker.name) not in labels:
            names[speaker.recording, speaker.id] = speaker.name
    result: list[Row] = []
    for row in rows:
        if isinstance(row, (Turn, Utterance)) and row.speaker is not None:
            row = replace(row, speaker=names.get((row.recording, row.speaker), row.speaker))
        result.append(row)
    return result


__all__ = [
    "FORMATS",
    "WHAT",
    "Format",
    "by_name",
    "format_of",
    "read_file",
    "read_text",
    "text_of",
    "with_names",
    "write_file",
    "write_text",
]
