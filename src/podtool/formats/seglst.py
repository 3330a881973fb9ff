"""SegLST: a JSON list of segments with session, times, speaker and words (CHiME, meeteval)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from podtool.artifacts import Row, Turn, Utterance
from podtool.errors import InputError
from podtool.formats.base import choose, in_order, number

_FIELDS = {"session_id", "start_time", "end_time", "speaker", "words"}


def write(rows: Sequence[Row], what: str = "auto") -> str:
    """Utterances, else turns (with empty words)."""
    if what == "segments":
        raise InputError("SegLST holds turns and utterances, not segments")
    entries: list[dict[str, Any]] = []
    for item in choose(rows, what, "SegLST"):
        entry: dict[str, Any] = {
            "session_id": item.recording,
            "start_time": round(item.start, 6),
            "end_time": round(item.end, 6),
        }
        if isinstance(item, Turn) or (isinstance(item, Utterance) and item.speaker is not None):
            entry["speaker"] = item.speaker
        entry["words"] = item.text if isinstance(item, Utterance) else ""
        entries.append(entry)
    lines = (json.dumps(e, ensure_ascii=False) for e in entries)
    return "[\n" + ",\n".join(" " + line for line in lines) + "\n]\n"


def read(text: str, name: str, recording: str, what: str = "auto") -> list[Row]:
    """Utterances, or turns where no entry has words. Raises InputError naming the line."""
    entries = [
        replace(_entry(e, f"{name}, line {line}", recording), id=f"u{at:04d}")
        for at, (line, e) in enumerate(_entries(text, name), 1)
    ]
    as_turns = what == "turns" or (what == "auto" and not any(e.text.strip() for e in entries))
    if not as_turns:
        return list(entries)
    rows: list[Row] = []
    for entry in entries:
        if entry.speaker is None:
            raise InputError(f"{name}: the entry at {entry.start} s has no speaker")
        at = f"t{len(rows) + 1:04d}"
        rows.append(
            Turn(at, entry.recording, entry.start, entry.end, entry.speaker, extra=entry.extra)
        )
    return rows


def _entries(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, entry) of a JSON list, decoded one by one so that errors know their line."""

    counted, lines = 0, 1

    def line(at: int) -> int:  # asked in order of place
        nonlocal counted, lines
        lines += text.count("\n", counted, at)
        counted = max(counted, at)
        return lines

    def skip(at: int) -> int:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        return at

    def refuse(constant: str) -> Any:
        raise InputError(f"{name}: {constant} is not a number")

    decoder = json.JSONDecoder(parse_constant=refuse)
    at = skip(0)
    if text[at : at + 1] != "[":
        raise InputError(f"{name}, line {line(at)}: SegLST is a JSON list of objects")
    at = skip(at + 1)
    while text[at : at + 1] != "]":
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise InputError(f"{name}, line {error.lineno}: not JSON ({error.msg})") from None
        if not isinstance(value, dict):
            raise InputError(f"{name}, line {line(at)}: expected an object, got {value!r}")
        yield line(at), value
        at = skip(end)
        if text[at : at + 1] == ",":
            at = skip(at + 1)
            if text[at : at + 1] != "]":
                continue
        if text[at : at + 1] != "]" or text[:at].rstrip().endswith(","):
            raise InputError(f"{name}, line {line(at)}: expected ',' and an object, or ']'")
    if text[at + 1 :].strip():
        raise InputError(f"{name}, line {line(skip(at + 1))}: text after the end of the list")


def _entry(record: dict[str, Any], where: str, recording: str) -> Utterance:
    start, end = _time(record, "start_time", where), _time(record, "end_time", where)
    in_order(start, end, where)
    session = _string(record, "session_id", where)
    return Utterance(
        id="",
        recording=session if session is not None else recording,
        start=start,
        end=end,
        text=_string(record, "words", where) or "",
        speaker=_string(record, "speaker", where),
        extra={k: v for k, v in record.items() if k not in _FIELDS} or None,
    )


def _time(record: dict[str, Any], key: str, where: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(f"{where}: {key} is missing or not a number")
    return number(str(value), where, key)


def _string(record: dict[str, Any], key: str, where: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {key} is not a text: {value!r}")
    return value
