"""`replace` as a list of steps on a run directory: what is asked for, what would run, running it.

A step knows its key from what came before, builds its folder, and loads it again; the run
directory decides between reusing, running and keeping what a person edited.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from podtool import __version__
from podtool.artifacts import Recording, Row
from podtool.audio import AudioFile
from podtool.engines.protocols import EngineContext
from podtool.errors import InputError, OutputError
from podtool.keys import Components
from podtool.progress import OnProgress, Timings, ignore
from podtool.rundir import POOL, RunDir, Verdict, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

STAGES = (
    "decode",
    "clone",
    "diarize",
    "separate",
    "talkers",
    "transcribe",
    "synthesize",
    "reconstruct",
    "check",
    "report",
)
TUNABLE = (
    "diarize",
    "separate",
    "talkers",
    "transcribe",
    "clone",
    "convert",
    "speak",
    "reconstruct",
)
METHODS, BEDS, OVERLAPS = (
    ("convert", "speak"),
    ("auto", "separate", "mixture"),
    ("keep", "separate", "convert"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What `replace` was asked to do; written to run.json, from which it can be explained."""

    source: str
    output: str
    mapping: tuple[tuple[str, str], ...] = ()  # (speaker as the person named it, voice file)
    consent: str | None = None
    turns: str | None = None
    method: str = "convert"
    bed: str = "auto"
    overlap: str = "keep"
    transcript: bool = False
    wer: bool = False
    mark: bool = True
    names: bool = True
    seed: int = 0
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def stage_params(self, stage: str) -> Any:
        """The Params of a stage; what the request does not say is the default."""
        from podtool.config import params_type

        return params_type(stage)(**_tuples(self.params.get(stage, {})))

    @property
    def reads_text(self) -> bool:
        """Whether speech is recognised at all."""
        return self.method == "speak" or self.transcript or self.wer


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


class State:
    """What the steps have found so far."""

    def __init__(
        self,
        request: Request,
        run: RunDir,
        context: EngineContext,
        enrolled: Mapping[str, NDArray[np.float32]],
        on_progress: OnProgress = ignore,
    ) -> None:
        self.request = request
        self.run = run
        self.context = context
        self.enrolled = enrolled
        self.on_progress = on_progress
        self.recording: Recording
        self.audio: AudioFile
        self.rows: dict[str, list[Row]] = {}
        self.folders: dict[str, Path] = {}
        self.targets: dict[str, str] = {}  # speaker label -> voice id
        self.timings: dict[str, Timings] = {}


class Step(Protocol):
    """One stage of the plan."""

    name: str

    def key(self, state: State) -> Components:
        """The components of the stage's key, from what the steps before have loaded."""
        ...

    def build(self, state: State, folder: Path) -> None:
        """Write every output into `folder`."""
        ...

    def load(self, state: State, folder: Path) -> None:
        """Take what a finished folder holds into the state."""
        ...


@dataclass(slots=True)
class Outcome:
    """A finished run: what each stage did and took, and the state with its rows."""

    state: State
    verdicts: dict[str, Verdict]
    seconds: dict[str, float]


def execute(
    request: Request,
    run_dir: Path,
    context: EngineContext,
    enrolled: Mapping[str, NDArray[np.float32]],
    steps: Sequence[Step],
    restart_from: str | None = None,
    on_progress: OnProgress = ignore,
    then: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Walk the steps: reuse, keep what was edited, build the rest; `then` while the lock is held.

    Raises what a step raises.
    """
    check_ours(run_dir)
    new = not run_dir.exists()
    with RunDir(run_dir, STAGES) as run:
        try:
            _write_request(run_dir, request)
            if restart_from is not None:
                run.forget_from(restart_from)
            state = State(request, run, context, enrolled, on_progress)
            outcome = Outcome(state, {}, {})
            _walk(steps, outcome)
            if then is not None:
                then(outcome)
        except BaseException:
            # Nothing was finished: leave no trace. The lock is held, so it is nobody else's.
            if new and not any((run_dir / name).exists() for name in (*STAGES, POOL)):
                shutil.rmtree(run_dir, ignore_errors=True)
            raise
        return outcome


def _walk(steps: Sequence[Step], outcome: Outcome) -> None:
    state, run = outcome.state, outcome.state.run
    try:
        for step in steps:
            began = time.perf_counter()
            state.timings[step.name] = Timings()
            components = step.key(state)
            folder, verdict = run.run(step.name, components, _builder(step, state))
            step.load(state, folder)
            state.folders[step.name] = folder
            outcome.verdicts[step.name] = verdict
            outcome.seconds[step.name] = time.perf_counter() - began
    except BaseException:
        close(state)
        raise


def close(state: State) -> None:
    """Let go of the decoded audio."""
    if hasattr(state, "audio"):
        state.audio.close()


def _builder(step: Step, state: State) -> Any:
    return lambda folder: step.build(state, folder)


def explain(
    request: Request,
    run_dir: Path,
    context: EngineContext,
    enrolled: Mapping[str, NDArray[np.float32]],
    steps: Sequence[Step],
) -> Iterator[Verdict]:
    """What a run would do with each stage, nothing written.

    After the first stage that has to run, what follows depends on its result.
    """
    run = RunDir(run_dir, STAGES)
    state = State(request, run, context, enrolled)
    known = True
    try:
        for step in steps:
            components = step.key(state) if known else None
            verdict = run.verdict(step.name, components)
            yield verdict
            if verdict.action == "run":
                known = False
            elif known:
                step.load(state, run.folder(step.name))
    finally:
        close(state)


# ---------------------------------------------------------------- run.json


def _write_request(run_dir: Path, request: Request) -> None:
    record = {"podtool": __version__, "command": "replace", **dataclasses.asdict(request)}
    write_json(run_dir / "run.json", record)


def read_request(run_dir: Path) -> Request:
    """The request of a run directory. Raises InputError for a folder that is none."""
    path = run_dir / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in dataclasses.fields(Request)}
        values = {k: v for k, v in record.items() if k in known}
        values["mapping"] = tuple((str(a), str(b)) for a, b in values.get("mapping", ()))
        return Request(**values)
    except FileNotFoundError:
        raise InputError(
            f"{run_dir} is not a run directory (no run.json)", "`podtool runs list` finds them."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def check_ours(run_dir: Path) -> None:
    """Refuse a folder that holds something else. Raises OutputError."""
    if not run_dir.exists():
        return
    if not run_dir.is_dir():
        raise OutputError(f"{run_dir} is a file", "Name another folder with --run-dir.")
    ours = (run_dir / "run.json").exists() or (run_dir / "lock").exists()
    if not ours and any(run_dir.iterdir()):
        raise OutputError(
            f"{run_dir} holds other things than a run", "Name another folder with --run-dir."
        )
