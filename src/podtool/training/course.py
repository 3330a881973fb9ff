"""One training in its folder: steps, averaged weights, validation, checkpoints, resuming.

A folder holds all of one training: last.pt (everything to go on from), best.safetensors (the
averaged weights that validated best), curve.csv and curve.png, training.json (what it was made
from). What is learnt, from what, and what counts as good is the business of a subclass; as long as
its batches depend on the seed and the step alone, a training that was stopped and resumed is the
training that was not.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from podtool import __version__
from podtool.audio import sha256_of
from podtool.errors import ConfigError, EngineFailure, ModelError
from podtool.progress import OnProgress, Progress, ignore
from podtool.training import curve, files, weights
from podtool.training.recipe import CourseParams

log = logging.getLogger(__name__)

LAST, BEST, CURVE, ABOUT = "last.pt", "best.safetensors", "curve.csv", "training.json"
BAD_STEPS = 50  # in a row without a finite gradient: then something is wrong but a scene
Batch = tuple[Tensor, ...]
Row = dict[str, float]  # of the curve


class AnyRecipe(Protocol):
    """What a course wants of a recipe; it is a dataclass."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def training(self) -> CourseParams: ...
    @property
    def digest(self) -> str: ...


@dataclass(slots=True)
class Progressed:
    """How far a training is."""

    step: int = 0
    seconds: float = 0.0  # of training, over all of its runs
    best: float = math.inf  # validation loss
    best_step: int = 0
    running: float = math.nan  # training loss, averaged over some 100 steps
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of a course ended with."""

    step: int
    best: Row  # of the curve; empty where nothing was validated
    stopped_early: bool
    interrupted: bool


class Course(ABC):
    """One training; `run` goes on from where the last one stopped."""

    network: nn.Module
    average: nn.Module

    def __init__(self, recipe: AnyRecipe, folder: Path, device: str, changed: bool) -> None:
        """Looks for what the folder holds; `_begin` is to follow, with the networks.

        `changed`: go on with a checkpoint of another recipe, of which only the network's shape has
        to be the same; what counts as best begins anew, and the model card tells it.
        Raises ConfigError where the folder holds another recipe's training, ModelError for a
        checkpoint that cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe: Any = recipe
        self.folder, self.device = folder, device
        self.workers = 0  # processes that make items
        self.before = self._read_last(changed)
        self.at = Progressed()
        self._bad = 0  # steps in a row that changed nothing

    @abstractmethod
    def _items(self) -> Dataset[Batch]:
        """What all steps are made of, in order."""

    @abstractmethod
    def _loss(self, network: nn.Module, batch: Batch) -> Tensor: ...

    @abstractmethod
    def _validation(self) -> tuple[list[float], dict[str, list[float]]]:
        """Losses of the averaged weights on what was kept out, and figures by name."""

    @abstractmethod
    def _save(self, path: Path, facts: dict[str, str]) -> None:
        """Write the averaged weights as safetensors, `facts` in its metadata."""

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """What `export` has to know beside what every course tells it."""

    def _begin(self, network: nn.Module, average: nn.Module) -> None:
        """Take these networks, and where a training was begun what it had come to."""
        params = self.recipe.training
        self.network, self.average = network.to(self.device), average.to(self.device)
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=params.lr,
            betas=(0.9, 0.98),
            weight_decay=params.weight_decay,
        )
        # On a GPU torch runs recurrent layers in half precision, where gradients of means over
        # millions of samples would be zero; a scale that follows them keeps them.
        mixed = params.precision == "bf16" and self.device.startswith("cuda")
        self.scaler = torch.amp.GradScaler("cuda", enabled=mixed)
        if self.before is not None:
            self._resume(self.before)

    def run(
        self,
        on_progress: OnProgress = ignore,
        on_row: Callable[[Row], None] = lambda row: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Train until the last step, or until validations stop getting better.

        `on_row` gets each validation's row of the curve. `stopping` is asked after each step:
        where it says yes, all is saved to go on from. Raises OutputError where it cannot be,
        EngineFailure where the loss stays without a finite value.
        """
        keep_memory()
        params, first = self.recipe.training, self.at.step
        began, before = time.monotonic(), self.at.seconds
        interrupted = False
        if not self._impatient():
            for batches in self._batches():
                self.at.step += 1
                value = self._step(batches)
                mean = self.at.running
                self.at.running = value if math.isnan(mean) else 0.99 * mean + 0.01 * value
                self.at.seconds = before + time.monotonic() - began
                step, last = self.at.step, self.at.step == params.steps
                on_progress(Progress("train", step - first, params.steps - first, "step"))
                if step % params.validate_every == 0 or last:
                    on_row(self._validate())
                interrupted = stopping() and not last
                ends = last or interrupted or self._impatient()
                if step % params.checkpoint_every == 0 or ends:
                    self._checkpoint()
                if ends:
                    break
        best = next((r for r in self.at.rows if r["step"] == self.at.best_step), {})
        return Outcome(self.at.step, best, self._impatient(), interrupted)

    def _impatient(self) -> bool:
        """Whether the last `patience` validations were no better than the one before them."""
        params = self.recipe.training
        since = (self.at.step - self.at.best_step) // params.validate_every
        return bool(since >= params.patience and self.at.step < params.steps)

    def _step(self, batches: Sequence[Batch]) -> float:
        params = self.recipe.training
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.at.step, params)
        self.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            value = self._loss(self.network, batch) / len(batches)
            self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), params.clip)
        if torch.isfinite(norm):  # one bad scene must not end a training of days
            self.scaler.step(self.optimiser)
            self._bad = 0
        else:
            self._bad += 1
            log.warning("step %d has no finite gradient: left out", self.at.step)
            if self._bad >= BAD_STEPS:
                raise EngineFailure(
                    f"no finite gradient in {BAD_STEPS} steps in a row",
                    "Set a lower lr or precision = 'fp32' and another -o, or look at the data.",
                )
        self.scaler.update()
        decay = min(params.ema, (1 + self.at.step) / (10 + self.at.step))
        with torch.no_grad():
            means: list[Tensor] = [*self.average.parameters()]
            now: list[Tensor] = [*self.network.parameters()]
            torch._foreach_lerp_(means, now, 1 - decay)
        return total

    def _batches(self) -> Iterator[list[Batch]]:
        """The batches of each step that is left."""
        params = self.recipe.training
        per_step = params.batch * params.accumulate
        order = range(self.at.step * per_step, params.steps * per_step)
        loader = DataLoader(
            self._items(),
            params.batch,
            sampler=order,
            num_workers=self.workers,
            worker_init_fn=_deaf,
            pin_memory=self.device.startswith("cuda"),
        )
        step: list[Batch] = []
        for batch in loader:
            step.append(tuple(batch))
            if len(step) == params.accumulate:
                yield step
                step = []

    def _validate(self) -> Row:
        """Score the averaged weights on what was kept out, and keep them if they are the best."""
        self.average.eval()
        with torch.inference_mode():
            losses, figures = self._validation()
        row: Row = {
            "step": self.at.step,
            "hours": round(self.at.seconds / 3600, 4),
            "lr": learning_rate(self.at.step, self.recipe.training),
            "train_loss": round(self.at.running, 4),
            "validation_loss": round(float(np.mean(losses)), 4),
            **{name: round(float(np.mean(v)), 3) for name, v in sorted(figures.items())},
        }
        self.at.rows.append(row)
        log.info("%s", ", ".join(f"{k} {v:g}" for k, v in row.items()))
        if row["validation_loss"] < self.at.best:
            self.at.best, self.at.best_step = row["validation_loss"], self.at.step
            self._keep(BEST)
        curve.write(self.at.rows, self.folder / CURVE)
        return row

    def _keep(self, name: str) -> None:
        facts = {"recipe": self.recipe.name, "step": str(self.at.step)}
        with tempfile.TemporaryDirectory() as scratch:  # safetensors keeps its files to the owner
            self._save(Path(scratch) / name, facts)
            self._write(name, weights.ordered((Path(scratch) / name).read_bytes()))

    # ------------------------------------------------------------------ files

    def _describe(self, manifests: Sequence[Path], start: Path | None = None) -> None:
        """What the training is made from, for `export`."""
        told: dict[str, Any] = {}
        before = self.before
        if before is not None:
            with contextlib.suppress(OSError, ValueError):
                told = dict(json.loads((self.folder / ABOUT).read_text("utf-8")))
        facts = {
            "recipe": asdict(self.recipe),
            "digest": self.recipe.digest,
            "podtool": __version__,
            "torch": torch.__version__,
            "manifests": {f"{m.parent.name}/{m.name}": sha256_of(m) for m in manifests},
            **self._facts(),
            "earlier": told.get("earlier", []),
            "start": told.get("start"),
        }
        if before is not None and before["recipe"] != self.recipe.digest:
            facts["earlier"] += [{"digest": before["recipe"], "step": self.at.step}]
        if before is None and start is not None:
            facts["start"] = {"name": start.name, "sha256": sha256_of(start)}
        self._write(ABOUT, json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n")

    def _checkpoint(self) -> None:
        state = {
            "recipe": self.recipe.digest,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            **asdict(self.at),
        }
        file = io.BytesIO()
        torch.save(state, file)
        self._write(LAST, file.getbuffer())

    def _write(self, name: str, content: bytes | memoryview) -> None:
        hint = "The checkpoint before it is whole: make room and run the same command again."
        files.write(self.folder / name, content, hint)

    def _read_last(self, changed: bool) -> dict[str, Any] | None:
        """The folder's checkpoint, None where there is none yet."""
        path = self.folder / LAST
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            digest = state["recipe"]
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{path} cannot be read: {reason}", _ANOTHER) from None
        if digest != self.recipe.digest and not changed:
            raise ConfigError(
                f"{self.folder} holds a training of another recipe",
                "Give another -o, or --changed to go on from it with the recipe as it is now.",
            )
        return state

    def _resume(self, state: Mapping[str, Any]) -> None:
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            if scale := state.get("scaler"):  # none where it was trained on a CPU so far
                self.scaler.load_state_dict(scale)
            known = Progressed.__dataclass_fields__.keys() & state.keys()
            self.at = Progressed(**{name: state[name] for name in known})
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            where = self.folder / LAST
            raise ModelError(f"{where} does not fit the recipe: {reason}", _ANOTHER) from None
        if state["recipe"] != self.recipe.digest:
            self.at.best, self.at.best_step = math.inf, self.at.step
        log.info("going on from step %d", self.at.step)


_ANOTHER = "Give another -o, or restore the file."


def _deaf(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the training alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def keep_memory() -> None:
    """Tell the GNU C library to keep what it frees.

    A step takes and frees gigabytes in large pieces; given back to the system, each of them costs
    page faults on its way in again: a third of a step's time on a CPU.
    """
    import ctypes

    trim_threshold, top_pad, mmap_max = -1, -2, -4  # of malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(top_pad, 2**26)


def learning_rate(step: int, params: CourseParams) -> float:
    """Warm-up, a plateau, and half a cosine down to zero over the last share of the steps."""
    rise = min(1.0, step / max(1, params.warmup))
    fall = max(1.0, params.steps * params.decay_share)
    left = min(1.0, max(0.0, (params.steps - step + 1) / fall))
    return params.lr * rise * 0.5 * (1 - math.cos(math.pi * left))
