"""Messages between podtool and a worker: JSON for what is small, raw bytes for arrays.

A message is a header (magic, length of the JSON, bytes of the arrays), the JSON, then the arrays as
they lie in memory. Nothing is pickled: what arrives can only become plain values, numeric arrays,
and the dataclasses of podtool. Both ends need numpy and the standard library, and no more.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import select
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"ptw1"
_HEADER = struct.Struct("<4sIQ")
_MOST_JSON = 256 << 20
_MOST_ARRAYS = 32 << 30
_BUFFERS = 64  # arrays written by one system call, well below IOV_MAX
Message = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Handle:
    """Stands for an object that stays in the worker."""

    number: int


class Garbage(ValueError):
    """What arrived is not a message."""


class Channel:
    """Messages over two pipes, one in each direction.

    `tick` is called every `tick_s` seconds while the other side lets wait; what it raises ends the
    wait. Without it a wait is as long as it takes. Raises EOFError where the other side is gone,
    Garbage for bytes that are no message.
    """

    def __init__(
        self,
        reader: int,
        writer: int,
        tick: Callable[[], None] | None = None,
        tick_s: float = 0.25,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._tick, self._tick_s = tick, tick_s
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)

    def send(self, message: Message) -> None:
        """Write one message. Raises TypeError for a value that cannot be sent."""
        arrays: list[NDArray[Any]] = []
        text = json.dumps(pack(message, arrays), ensure_ascii=False, allow_nan=False).encode()
        header = _HEADER.pack(_MAGIC, len(text), sum(a.nbytes for a in arrays))
        parts = [memoryview(header + text)]
        parts += [_bytes_of(a) for a in arrays if a.nbytes]
        while parts:
            try:
                written = os.writev(self._writer, parts[:_BUFFERS])
            except BlockingIOError:
                self._wait(self._writer, select.POLLOUT)
                continue
            except BrokenPipeError:
                raise EOFError("the other side is gone") from None
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][written:]

    def receive(self) -> Message:
        """Read one message."""
        head = bytearray(_HEADER.size)
        self._fill(memoryview(head))
        magic, length, size = _HEADER.unpack(head)
        if magic != _MAGIC or length > _MOST_JSON or size > _MOST_ARRAYS:
            raise Garbage("these bytes are no message")
        text = bytearray(length)
        self._fill(memoryview(text))
        try:
            record = json.loads(text)
            shapes = list(_arrays_of(record))
            if sum(t.itemsize * math.prod(s) for t, s in shapes) != size:
                raise Garbage("the arrays have another size than the message says")
            arrays = [np.empty(shape, kind) for kind, shape in shapes]
            for array in arrays:
                if array.nbytes:
                    self._fill(_bytes_of(array))
            message = unpack(record, iter(arrays))
        except (Garbage, EOFError):
            raise
        except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
            raise Garbage(f"this is no message: {error}") from None
        if not isinstance(message, dict):
            raise Garbage("this is no message")
        return message

    def close(self) -> None:
        """Close both pipes; the other side sees the end."""
        os.close(self._reader)
        os.close(self._writer)

    def _fill(self, view: memoryview) -> None:
        while len(view):
            try:
                count = os.readv(self._reader, [view])
            except BlockingIOError:
                self._wait(self._reader, select.POLLIN)
                continue
            if count == 0:
                raise EOFError("the other side is gone")
            view = view[count:]

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if self._tick is None:
            poll.poll()
        elif not poll.poll(1000 * self._tick_s):
            self._tick()


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def pack(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """A value as JSON can hold it; its arrays are appended to `arrays` in order.

    Raises TypeError for anything but None, numbers, text, lists, tuples, iterators, mappings with
    text for keys, numeric arrays, and dataclasses and named tuples of podtool.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            raise TypeError(f"an array of {value.dtype} cannot be sent to a worker")
        array = np.ascontiguousarray(value)
        arrays.append(array)
        return {"$": "array", "dtype": array.dtype.str, "shape": list(value.shape)}
    if type(value) is tuple:
        return {"$": "tuple", "v": [pack(v, arrays) for v in value]}
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise TypeError("only mappings with text for keys can be sent to a worker")
        return {"$": "dict", "v": {k: pack(v, arrays) for k, v in value.items()}}
    if isinstance(value, (list, Iterator)):
        return [pack(v, arrays) for v in value]
    names = _field_names(type(value))
    if names is None:
        raise TypeError(f"a {type(value).__name__} cannot be sent to a worker")
    fields = {n: pack(getattr(value, n), arrays) for n in names}
    return {"$": f"{type(value).__module__}:{type(value).__qualname__}", "v": fields}


def unpack(record: Any, arrays: Iterator[NDArray[Any]]) -> Any:
    """What `pack` packed. Raises Garbage, or what a dataclass says of wrong fields."""
    if isinstance(record, list):
        return [unpack(v, arrays) for v in record]
    if not isinstance(record, dict):
        return record
    kind = record["$"]
    if kind == "array":
        return next(arrays)
    value = record["v"]
    if kind == "float":
        return float(value)
    if kind == "tuple":
        return tuple(unpack(v, arrays) for v in value)
    if kind == "dict":
        return {k: unpack(v, arrays) for k, v in value.items()}
    return _class_of(kind)(**{k: unpack(v, arrays) for k, v in value.items()})


def _arrays_of(record: Any) -> Iterator[tuple[np.dtype[Any], tuple[int, ...]]]:
    """Type and shape of every array, in the order in which `pack` met them."""
    if isinstance(record, list):
        for value in record:
            yield from _arrays_of(value)
    elif isinstance(record, dict):
        if record["$"] == "array":
            kind, shape = np.dtype(str(record["dtype"])), tuple(record["shape"])
            if kind.kind not in "biufc" or not all(type(n) is int and n >= 0 for n in shape):
                raise Garbage("an array of no known type")
            yield kind, shape
            return
        value = record["v"]
        for part in value.values() if isinstance(value, dict) else [value]:
            yield from _arrays_of(part)


def _field_names(kind: type[Any]) -> tuple[str, ...] | None:
    """The fields of a dataclass or named tuple of podtool; None for any other type."""
    if not kind.__module__.startswith("podtool."):
        return None
    if dataclasses.is_dataclass(kind):
        return tuple(f.name for f in dataclasses.fields(kind) if f.init)
    if issubclass(kind, tuple):
        return getattr(kind, "_fields", None)
    return None


def _class_of(name: str) -> type[Any]:
    module, _, attribute = name.partition(":")
    if not module.startswith("podtool."):
        raise Garbage(f"{name} is not a class of podtool")
    kind = getattr(importlib.import_module(module), attribute)
    if not isinstance(kind, type) or _field_names(kind) is None:
        raise Garbage(f"{name} is not data")
    return kind
