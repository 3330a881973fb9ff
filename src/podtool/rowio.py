"""Rows to JSON lines and back: strict about known kinds, transparent for unknown ones.

Paths are written relative to the file's folder when they lie beneath it, absolute otherwise and
always absolute on stdout; they are resolved on reading, and one that climbs out of the folder of
its file by `..` is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

from podtool.artifacts import ROW_TYPES, KnownRow, Opaque, Row
from podtool.errors import InputError, OutputError

_VERBATIM = ("extra", "params")  # not ours to round
DECIMALS = 6  # a microsecond: exact to the sample at every rate up to 192 kHz
R = TypeVar("R")


def encode(row: Row, folder: Path | None = None) -> str:
    """One row as one line of JSON without the line feed; `folder` makes paths relative to it."""
    if isinstance(row, Opaque):
        return json.dumps(row.fields, ensure_ascii=False)
    record: dict[str, Any] = {"kind": row.kind, "v": row.version}
    for f in dataclasses.fields(row):
        value = getattr(row, f.name)
        if f.name not in _VERBATIM:
            value = _plain(value)
        if value is None:
            continue
        if f.name == "path":
            value = _outward(str(value), folder)
        record[field_name(f)] = value
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def field_name(f: dataclasses.Field[Any]) -> str:
    """What a field is called in a row: `from` cannot be the name of one in Python."""
    return str(f.metadata.get("name", f.name))


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        rounded = round(value, DECIMALS)
        return 0.0 if rounded == 0 else rounded
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, _plain(getattr(value, f.name))) for f in dataclasses.fields(value))
        return {k: v for k, v in pairs if v is not None}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    raise TypeError(f"a row cannot hold {type(value).__name__}")


def _outward(path: str, folder: Path | None) -> str:
    absolute = os.path.abspath(path)
    if folder is not None:
        base = os.path.abspath(folder)
        if os.path.commonpath([absolute, base]) == base:
            return os.path.relpath(absolute, base)
    return absolute


def decode(line: str, where: str = "row", folder: Path | None = None) -> Row:
    """One line to one row.

    Raises InputError, naming `where`, for anything but a valid row of a known version.
    """
    try:
        record = json.loads(
            line,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_once_each,
        )
        line.encode("utf-8")
        if "\\u" in line:
            json.dumps(record, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair
    except RecursionError:
        raise InputError(f"{where}: not a row (nested too deeply)") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: holds half of a character (a lone surrogate)") from None
    except ValueError as error:
        raise InputError(f"{where}: not a JSON row ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise InputError(f"{where}: a row is a JSON object with a `kind`")
    row_type = ROW_TYPES.get(record["kind"])
    if row_type is None:
        return Opaque(record)
    return _known(record, row_type, where, folder)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"the field {twice!r} is there twice")
    return record


def _known(
    record: dict[str, Any], row_type: type[KnownRow], where: str, folder: Path | None
) -> KnownRow:
    kind, version = record.pop("kind"), record.pop("v", None)
    if type(version) is not int or version != row_type.version:
        hint = "Update podtool: pip install -U podtool" if _newer(version, row_type) else None
        raise InputError(
            f"{where}: {kind} row has version {version!r}; this podtool knows {row_type.version}",
            hint,
        )
    if isinstance(record.get("path"), str):
        record["path"] = _inward(record["path"], folder, where)
    row = typing.cast(KnownRow, _build(row_type, record, f"{where}: {kind}"))
    start, end = getattr(row, "start", 0.0), getattr(row, "end", None)
    if start < 0:
        raise InputError(f"{where}: {kind} starts before the recording ({start} s)")
    if end is not None and end < start:
        raise InputError(f"{where}: {kind} ends ({end} s) before it starts ({start} s)")
    for name, least in _LEAST.items():
        if getattr(row, name, least) < least:
            raise InputError(f"{where}: {kind}.{name} is {getattr(row, name)}, below {least}")
    return row


_LEAST = {"sample_rate": 1, "channels": 1, "frames": 0}


def _newer(version: Any, row_type: type[KnownRow]) -> bool:
    return isinstance(version, int) and version > row_type.version


def _inward(path: str, folder: Path | None, where: str) -> str:
    if not path or "\0" in path:
        raise InputError(f"{where}: {path!r} is not a path")
    if os.path.isabs(path):
        return path
    base = os.path.realpath(folder if folder is not None else Path.cwd())
    resolved = os.path.realpath(os.path.join(base, path))
    if os.path.commonpath([resolved, base]) != base:
        raise InputError(
            f"{where}: the path {path!r} points outside the folder of its file",
            "Use a path inside the folder, or an absolute one.",
        )
    return os.path.join(os.path.abspath(base), path)


_TYPES: dict[type[Any], dict[str, Any]] = {}


def _types(owner: type[Any]) -> dict[str, Any]:
    if owner not in _TYPES:
        _TYPES[owner] = typing.get_type_hints(owner)
    return _TYPES[owner]


def _build(owner: type[Any], record: dict[str, Any], where: str) -> Any:
    fields = {field_name(f): f for f in dataclasses.fields(owner)}
    unknown = sorted(set(record) - set(fields))
    if unknown:
        raise InputError(
            f"{where}: unknown field {unknown[0]!r}",
            f"Known fields: {', '.join(fields)}. Put your own under `extra`.",
        )
    values = {
        fields[k].name: _value(v, _types(owner)[fields[k].name], f"{where}.{k}")
        for k, v in record.items()
    }
    missing = [
        n
        for n, f in fields.items()
        if f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where}: the field {missing[0]!r} is missing")
    return owner(**values)


def _value(value: Any, wanted: Any, where: str) -> Any:
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            raise InputError(f"{where}: leave the field out instead of null")
        wanted = next(a for a in args if a is not type(None))
        return _value(value, wanted, where)
    if wanted is Any:
        return value
    if wanted is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{where}: expected a number, got {value!r}")
        try:
            return float(value)
        except OverflowError:
            raise InputError(f"{where}: the number is too large") from None
    if wanted in (int, str, bool):
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise InputError(f"{where}: expected {wanted.__name__}, got {value!r}")
        return value
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected an object")
        return _build(typing.cast(type[Any], wanted), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where}: expected a list")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_value(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise InputError(f"{where}: expected {len(args)} values")
        return tuple(_value(v, a, where) for v, a in zip(value, args, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected an object")
        return {str(k): _value(v, args[1], f"{where}.{k}") for k, v in value.items()}
    raise TypeError(f"no rule for {wanted}")


def parse_rows(stream: Iterable[str], name: str, folder: Path | None = None) -> Iterator[Row]:
    """The rows of a stream of lines; errors name `name` and the line number."""
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix("\ufeff")  # editors on Windows leave a byte order mark
        if line.strip():
            yield decode(line, f"{name}, line {number}", folder)


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a JSONL file, paths resolved. Raises InputError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text: JSONL rows were expected") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return list(parse_rows(io.StringIO(text), str(path), path.parent))


def write_rows(rows: Iterable[Row], path: str | Path, force: bool = True) -> None:
    """Write a JSONL file whole or not at all. Raises OutputError."""
    path = Path(path)
    if path.exists() and not force:
        raise OutputError(f"{path} exists", "Give --force to overwrite it.")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            emit(rows, stream, path.parent)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        raise


def emit(rows: Iterable[Row], stream: TextIO, folder: Path | None = None) -> None:
    """Write rows one by one, each flushed, so that a pipe sees them at once."""
    for row in rows:
        stream.write(encode(row, folder) + "\n")
        stream.flush()


def of_kind(rows: Iterable[Row], row_type: type[R]) -> list[R]:
    """The rows of one type, in order."""
    return [row for row in rows if isinstance(row, row_type)]
