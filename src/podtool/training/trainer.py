"""Training a separator from a recipe: resumable to the step, averaged, validated, stopped in time.

A folder holds all of one training: last.pt (everything to go on from), best.safetensors (the
averaged weights that validated best), curve.csv and curve.png, training.json (what it was made
from), rooms and decoded audio. The scene of a step depends on the seed and the step alone, so a
training that was stopped and resumed is the training that was not.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from podtool import __version__
from podtool.audio import sha256_of
from podtool.engines.separation_podtool_model import (
    BandSplit,
    band_powers,
    load,
    save,
    separate_and_group,
)
from podtool.errors import ConfigError, EngineFailure, InputError, ModelError
from podtool.progress import OnProgress, Progress, ignore
from podtool.training import curve, files, widen
from podtool.training.corpus import Corpus, read_corpus
from podtool.training.losses import assign, grouping, loss, si_sdr
from podtool.training.mixing import Mixer
from podtool.training.recipe import Recipe, TrainingParams
from podtool.training.rooms import Rooms

log = logging.getLogger(__name__)

VALIDATION_SEED = 20_000_003  # scenes that no training step draws
LAST, BEST, CURVE, ABOUT = "last.pt", "best.safetensors", "curve.csv", "training.json"
CLEAN_DB = 30.0  # a mixture that is that near to its talkers has nothing to separate
BAD_STEPS = 50  # in a row without a finite gradient: then something is wrong but a scene
Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # mixture, talkers, background, counts
Row = dict[str, float]  # of the curve


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
    """What a run of the trainer ended with."""

    step: int
    best: Row  # of the curve; empty where nothing was validated
    stopped_early: bool
    interrupted: bool


class Scenes(Dataset[Batch]):
    """Scene `index` of a mixer, as tensors for a task."""

    def __init__(self, mixer: Mixer, task: str, count: int) -> None:
        self.mixer, self.task, self.count = mixer, task, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        scene = self.mixer.scene(index)
        talkers, count = scene.talkers, scene.count
        if self.task == "background":
            talkers, count = talkers.sum(0, keepdims=True), 1
        return (
            torch.from_numpy(np.ascontiguousarray(scene.mixture)),
            torch.from_numpy(np.ascontiguousarray(talkers)),
            torch.from_numpy(np.ascontiguousarray(scene.background)),
            torch.tensor(count),
        )


class Trainer:
    """One training in its folder; `run` goes on from where the last one stopped."""

    def __init__(
        self,
        recipe: Recipe,
        manifests: Sequence[Path],
        folder: Path,
        device: str = "cpu",
        start: Path | None = None,
        workers: int = 0,
        cache: Path | None = None,
        changed: bool = False,
    ) -> None:
        """`start`: weights to begin with, where the folder has none; it may be of the causal form.

        `cache`: folder of the decoded audio, which trainings on the same data can share.
        `changed`: go on with a checkpoint of another recipe, of which only the network's shape has
        to be the same; what counts as best begins anew, and the model card tells it.
        Raises ConfigError where the folder holds another recipe's training, InputError for data,
        ModelError for a checkpoint that cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe, self.folder, self.device, self.workers = recipe, folder, device, workers
        before = self._read_last(changed)
        self.rooms = None
        if recipe.mixing.reverb_share > 0:
            self.rooms = Rooms.make(recipe.training.rooms, recipe.seed, folder / "rooms.npz")
        audio = (cache or folder) / "audio.npy"
        self.data = self._corpus(manifests, "train", audio)
        self.held_out = self._corpus(manifests, "validation", audio)
        torch.manual_seed(recipe.seed)
        self.network = BandSplit(recipe.network)
        if start is not None and before is None:
            widen.fill(self.network, load(start))
        self.network.to(device)
        self.average = BandSplit(recipe.network).to(device)
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=recipe.training.lr,
            betas=(0.9, 0.98),
            weight_decay=recipe.training.weight_decay,
        )
        self.at = Progressed()
        self._bad = 0  # steps in a row that changed nothing
        if before is not None:
            self._resume(before)
        self._describe(manifests, start, before)

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
        _keep_memory()
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
        return since >= params.patience and self.at.step < params.steps

    # ------------------------------------------------------------------ steps

    def _step(self, batches: Sequence[Batch]) -> float:
        params = self.recipe.training
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.at.step, params)
        self.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            value = self._loss(self.network, batch) / len(batches)
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), params.clip)
        if torch.isfinite(norm):  # one bad scene must not end a training of days
            self.optimiser.step()
            self._bad = 0
        else:
            self._bad += 1
            log.warning("step %d has no finite gradient: left out", self.at.step)
            if self._bad >= BAD_STEPS:
                raise EngineFailure(
                    f"no finite gradient in {BAD_STEPS} steps in a row",
                    "Set a lower lr or precision = 'fp32' and another -o, or look at the data.",
                )
        decay = min(params.ema, (1 + self.at.step) / (10 + self.at.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for mean, now in pairs:
                mean.lerp_(now, 1 - decay)
        return total

    def _loss(self, network: BandSplit, batch: Batch) -> Tensor:
        mixture, talkers, background, counts = (x.to(self.device) for x in batch)
        found, groups = self._separate(network, mixture, counts)
        params = self.recipe.loss
        total = loss(found, talkers, mixture, background, counts, params)
        if params.grouping:
            with torch.no_grad():
                powers = band_powers(talkers, network.params)
            total = total + params.grouping * grouping(groups, powers)
        return total

    def _separate(
        self, network: BandSplit, mixture: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        mixed = self.recipe.training.precision == "bf16"
        with torch.autocast(self.device, torch.bfloat16, enabled=mixed):
            return separate_and_group(network, mixture, counts)

    def _batches(self) -> Iterator[list[Batch]]:
        """The batches of each step that is left."""
        params = self.recipe.training
        per_step = params.batch * params.accumulate
        mixer = Mixer(self.data, self.recipe.mixing, self.recipe.seed, self.rooms)
        scenes = Scenes(mixer, self.recipe.task, params.steps * per_step)
        order = range(self.at.step * per_step, params.steps * per_step)
        loader = DataLoader(
            scenes,
            params.batch,
            sampler=order,
            num_workers=self.workers,
            worker_init_fn=_deaf,
        )
        step: list[Batch] = []
        for batch in loader:
            step.append(tuple(batch))
            if len(step) == params.accumulate:
                yield step
                step = []

    # ------------------------------------------------------------------ validation

    def _validate(self) -> Row:
        """Score the averaged weights on scenes of people and backgrounds kept out."""
        recipe = self.recipe
        mixer = Mixer(self.held_out, recipe.mixing, VALIDATION_SEED, self.rooms)
        scenes = Scenes(mixer, recipe.task, recipe.training.validation_scenes)
        self.average.eval()
        losses: list[float] = []
        gains: dict[str, list[float]] = {}
        with torch.inference_mode():
            for batch in DataLoader(scenes, recipe.training.batch):
                mixture, talkers, background, counts = (x.to(self.device) for x in batch)
                found, _ = self._separate(self.average, mixture, counts)
                for k in range(len(mixture)):
                    one = slice(k, k + 1)
                    parts = talkers[one], mixture[one], background[one], counts[one]
                    losses.append(float(loss(found[one], *parts, recipe.loss)))
                    for name, value in scores(found[k], talkers[k], mixture[k], int(counts[k])):
                        gains.setdefault(name, []).append(value)
        row: Row = {
            "step": self.at.step,
            "hours": round(self.at.seconds / 3600, 4),
            "lr": learning_rate(self.at.step, recipe.training),
            "train_loss": round(self.at.running, 4),
            "validation_loss": round(float(np.mean(losses)), 4),
            **{name: round(float(np.mean(v)), 3) for name, v in sorted(gains.items())},
        }
        self.at.rows.append(row)
        log.info("%s", ", ".join(f"{k} {v:g}" for k, v in row.items()))
        if row["validation_loss"] < self.at.best:
            self.at.best, self.at.best_step = row["validation_loss"], self.at.step
            self._keep(BEST, self.average)
        curve.write(self.at.rows, self.folder / CURVE)
        return row

    def _keep(self, name: str, network: BandSplit) -> None:
        facts = {"recipe": self.recipe.name, "step": str(self.at.step)}
        with tempfile.TemporaryDirectory() as scratch:  # safetensors keeps its files to the owner
            save(network, Path(scratch) / name, facts)
            self._write(name, _ordered((Path(scratch) / name).read_bytes()))

    # ------------------------------------------------------------------ files

    def _corpus(self, manifests: Sequence[Path], split: str, cache: Path) -> Corpus:
        found = read_corpus(manifests, self.recipe.data, split, cache=cache)
        needed = 1 if self.recipe.task == "background" else self.recipe.mixing.talkers
        if len(found.speakers) < needed:
            raise InputError(
                f"{len(found.speakers)} speakers for {split}: at least {needed} are needed",
                "Name speakers in validation_speakers of the recipe, and give more data.",
            )
        return found

    def _describe(
        self, manifests: Sequence[Path], start: Path | None, before: Mapping[str, Any] | None
    ) -> None:
        """What the training is made from, for `export`."""
        told: dict[str, Any] = {}
        if before is not None:
            with contextlib.suppress(OSError, ValueError):
                told = dict(json.loads((self.folder / ABOUT).read_text("utf-8")))
        facts = {
            "recipe": asdict(self.recipe),
            "digest": self.recipe.digest,
            "podtool": __version__,
            "torch": torch.__version__,
            "manifests": {f"{m.parent.name}/{m.name}": sha256_of(m) for m in manifests},
            "credits": self.data.credits,
            "speakers": len(self.data.speakers),
            "speech_hours": round(self.data.seconds / 3600, 3),
            "validation_speakers": len(self.held_out.speakers),
            "unmatched": self.data.unmatched,
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
            known = Progressed.__dataclass_fields__.keys() & state.keys()
            self.at = Progressed(**{name: state[name] for name in known})
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            where = self.folder / LAST
            raise ModelError(f"{where} does not fit the recipe: {reason}", _ANOTHER) from None
        if state["recipe"] != self.recipe.digest:
            self.at.best, self.at.best_step = math.inf, self.at.step
        log.info("going on from step %d", self.at.step)


def _ordered(weights: bytes) -> bytes:
    """The same safetensors with its metadata in order: equal trainings give equal files."""
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + weights[8 + size :]


_ANOTHER = "Give another -o, or restore the file."


def _deaf(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the training alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _keep_memory() -> None:
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


def learning_rate(step: int, params: TrainingParams) -> float:
    """Warm-up, a plateau, and a fall to zero over the last share of the steps."""
    rise = min(1.0, step / max(1, params.warmup))
    fall = max(1.0, params.steps * params.decay_share)
    return params.lr * rise * min(1.0, max(0.0, (params.steps - step + 1) / fall))


def scores(
    found: Tensor, talkers: Tensor, mixture: Tensor, count: int
) -> Iterator[tuple[str, float]]:
    """SI-SDR of one scene and its improvement, by the number of talkers.

    `si_sdr_clean` is that of scenes with next to nothing to remove, which shall not be harmed: an
    improvement would say nothing there. A scene in which a talker is silent has no score.
    """
    audible = [j for j in range(count) if float(talkers[j].square().sum()) > 0]
    if len(audible) < count or count == 0:
        return
    pairs = -si_sdr(found[:count, None], talkers[None, :count])
    value, _ = assign(pairs[None], torch.tensor([count], device=found.device))
    before = float(si_sdr(mixture[None], talkers[:count]).mean())
    if before > CLEAN_DB:
        yield "si_sdr_clean", float(-value[0])
        return
    yield f"si_sdri_{count}", float(-value[0]) - before
    yield f"si_sdr_{count}", float(-value[0])
