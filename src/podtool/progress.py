"""What a stage tells while it works: progress through a callback, and the time of each part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of work of a stage."""

    stage: str
    done: float
    total: float
    unit: str = "s"


NOTICE = 25  # level of log lines that a person sees unless --quiet: not a warning, but news

OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """The observer that does not listen."""


@dataclass(slots=True)
class Timings:
    """Wall-clock seconds of the named parts of a command, in order of first use."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
