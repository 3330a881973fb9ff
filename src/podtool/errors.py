"""Typed errors. Each class carries its exit code and code word for the command line."""

from __future__ import annotations

from typing import ClassVar


class PodtoolError(Exception):
    """A failure that a person can act on: one line of what is wrong, one hint of what to do."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PodtoolError):
    """Arguments that parse but do not make sense together."""

    exit_code = 2
    code = "usage"


class InputError(PodtoolError):
    """Unreadable audio, an invalid row, the wrong kind of input."""

    exit_code = 3
    code = "bad-input"


class ConfigError(PodtoolError):
    """A preset, environment variable or --set value that is not valid."""

    exit_code = 4
    code = "bad-config"


class EngineUnavailableError(PodtoolError):
    """An engine that is unknown, not installed, or does not run on this machine."""

    exit_code = 5
    code = "engine-unavailable"


class ModelError(PodtoolError):
    """Weights that are missing or corrupted, a licence not accepted, or no network allowed."""

    exit_code = 6
    code = "model"


class EngineFailure(PodtoolError):
    """A backend raised, ran out of memory, or broke its contract."""

    exit_code = 7
    code = "engine-failed"


class OutputError(PodtoolError):
    """The output exists, cannot be written, or the disk is full."""

    exit_code = 8
    code = "output"


class PartialFailure(PodtoolError):
    """The work finished, but some items failed or did not fit."""

    exit_code = 9
    code = "partial"


class CheckFailed(PodtoolError):
    """`evaluate` or `check` found a breach."""

    exit_code = 10
    code = "check-failed"
