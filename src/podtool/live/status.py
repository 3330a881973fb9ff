"""What a live session tells of itself: audio as it arrives, and how it is doing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Block:
    """Audio as it came: (channels, n) at the source's rate.

    `gap_s`: seconds of real time before it of which there is no audio (the device was gone, the
    machine slept, PortAudio lost some). Time stamps count audio alone, as the recording does.
    """

    samples: Samples
    gap_s: float = 0.0


class Source(Protocol):
    """Where audio comes from. `blocks` ends where the audio does, or after `close`."""

    name: str
    sample_rate: int
    channels: int
    live: bool  # audio is lost, or late, where it is not taken in time

    def blocks(self) -> Iterator[Block]: ...

    def close(self) -> None: ...


class Shed(IntEnum):
    """What a session leaves out because the machine cannot keep up."""

    NOTHING = 0
    PARTIALS = 1
    SEPARATION = 2


@dataclass(frozen=True, slots=True)
class Talker:
    """One voice at this moment."""

    speaker: str  # S1
    name: str | None = None  # of somebody known
    level_db: float = -120.0  # dBFS, of the last tenth of a second
    active: bool = False
    overlapped: bool = False  # somebody else talks too


@dataclass(frozen=True, slots=True)
class Status:
    """A session at one moment, some ten times a second."""

    source: str = ""
    at_s: float = 0.0  # of audio taken in
    level_db: float = -120.0  # dBFS of the input
    talkers: tuple[Talker, ...] = ()  # in order of arrival
    latency_s: tuple[float, float] | None = None  # p50, p95 of the last minute: words to partials
    behind_s: float = 0.0  # audio that waits to be heard
    lost_s: float = 0.0  # audio that never came, in all
    shed: Shed = Shed.NOTHING
    cpu: float = 0.0  # cores in use by this process
    paused: bool = False
    waiting: str | None = None  # for what: a device that is gone
    saved: str | None = None  # folder of --save
    warnings: tuple[str, ...] = field(default=())
