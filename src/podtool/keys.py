"""Keys: what a result was made from, as one sha256, so that equal work is recognised.

A key hashes canonical JSON of its components (stage, engine, models, parameters, seed, content of
the inputs). Nothing that differs between two equal runs belongs in it: no path, time or device.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from podtool.artifacts import Provenance, Row
from podtool.rowio import encode

Components = dict[str, Any]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def key_of(components: Mapping[str, Any]) -> str:
    """Hex sha256 of the canonical JSON of the components."""
    return hashlib.sha256(canonical(components).encode()).hexdigest()


def content_of(rows: Iterable[Row]) -> str:
    """Hash of what rows say: without `path` (their sha256 stands for it) and provenance."""
    digest = hashlib.sha256()
    for row in rows:
        if isinstance(row, Provenance):
            continue
        record = json.loads(encode(row))
        record.pop("path", None)
        digest.update(canonical(record).encode() + b"\n")
    return digest.hexdigest()


def row_seed(run_seed: int, row_id: str) -> int:
    """The seed of one row: independent of the order and the number of workers."""
    sequence = np.random.SeedSequence([run_seed, zlib.crc32(row_id.encode())])
    return int(sequence.generate_state(1)[0])


def first_difference(old: Any, new: Any, at: str = "") -> str | None:
    """Dotted name of the first component that differs, in sorted order; None where all agree."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            inner = f"{at}.{name}" if at else str(name)
            if name not in old or name not in new:
                return inner
            found = first_difference(old[name], new[name], inner)
            if found:
                return found
        return None
    return None if canonical(old) == canonical(new) else at or "value"
