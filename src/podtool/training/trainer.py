"""Training a separator from a recipe: resumable to the step, averaged, validated, stopped in time.

A folder holds all of one training: last.pt (everything to go on from), best.safetensors (the
averaged weights that validated best), curve.csv and curve.png, rooms and decoded audio. The scene
of a step depends on the seed and the step alone, so a training that was stopped and resumed is
the training that was not.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from podtool.engines.separation_podtool_model import BandSplit, load, save, separate
from podtool.errors import ConfigError, InputError, ModelError
from podtool.progress import OnProgress, Progress, ignore
from podtool.training import curve, widen
from podtool.training.corpus import Corpus, read_corpus
from podtool.training.losses import assign, loss, si_sdr
from podtool.training.mixing import Mixer
from podtool.training.recipe import Recipe, TrainingParams
from podtool.training.rooms import Rooms

log = logging.getLogger(__name__)

VALIDATION_SEED = 20_000_003  # scenes that no training step draws
LAST, BEST, CURVE = "last.pt", "best.safetensors", "curve.csv"
Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # mixture, talkers, background, counts


@dataclass(slots=True)
class Progressed:
    """How far a training is."""

    step: int = 0
    seconds: float = 0.0  # of training, over all of its runs
    best: float = math.inf  # validation loss
    best_step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)  # of the curve


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the trainer ended with."""

    step: int
    best_step: int
    metrics: dict[str, float]
    stopped_early: bool
    credits: tuple[Any, ...]


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
    ) -> None:
        """`start`: weights to begin with, where the folder has none; it may be of the causal form.

        Raises ConfigError where the folder holds another recipe's training, InputError for data.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe, self.folder, self.device, self.workers = recipe, folder, device, workers
        self.rooms = Rooms.make(recipe.training.rooms, recipe.seed, folder / "rooms.npz")
        self.data = self._corpus(manifests, "train")
        self.held_out = self._corpus(manifests, "validation")
        torch.manual_seed(recipe.seed)
        self.network = BandSplit(recipe.network)
        if start is not None:
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
        if (folder / LAST).is_file():
            self._resume()

    def run(self, on_progress: OnProgress = ignore) -> Outcome:
        """Train until the last step, or until validations stop getting better."""
        params = self.recipe.training
        began, before = time.monotonic(), self.at.seconds
        stopped_early, running = False, math.nan
        for batches in self._batches():
            self.at.step += 1
            value = self._step(batches)
            running = value if math.isnan(running) else 0.99 * running + 0.01 * value
            self.at.seconds = before + time.monotonic() - began
            step = self.at.step
            on_progress(Progress("train", step, params.steps, "step"))
            if step % params.validate_every == 0 or step == params.steps:
                self._validate(running)
                waited = (step - self.at.best_step) // params.validate_every
                stopped_early = waited >= params.patience
            if step % params.checkpoint_every == 0 or step == params.steps or stopped_early:
                self._checkpoint()
            if stopped_early:
                log.info("no better for %d validations: stopped", params.patience)
                break
        best = next((r for r in self.at.rows if r["step"] == self.at.best_step), {})
        return Outcome(
            self.at.step, self.at.best_step, best, stopped_early, tuple(self.data.credits)
        )

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
            total += float(value)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), params.clip)
        if torch.isfinite(norm):  # one bad scene must not end a training of days
            self.optimiser.step()
        decay = min(params.ema, (1 + self.at.step) / (10 + self.at.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for mean, now in pairs:
                mean.lerp_(now, 1 - decay)
        return total

    def _loss(self, network: BandSplit, batch: Batch) -> Tensor:
        mixture, talkers, background, counts = (x.to(self.device) for x in batch)
        found = self._separate(network, mixture, counts)
        return loss(found, talkers, mixture, background, counts, self.recipe.loss)

    def _separate(self, network: BandSplit, mixture: Tensor, counts: Tensor) -> Tensor:
        mixed = self.recipe.training.precision == "bf16"
        with torch.autocast(self.device, torch.bfloat16, enabled=mixed):
            return separate(network, mixture, counts)

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
            persistent_workers=self.workers > 0,
        )
        step: list[Batch] = []
        for batch in loader:
            step.append(tuple(batch))
            if len(step) == params.accumulate:
                yield step
                step = []

    # ------------------------------------------------------------------ validation

    def _validate(self, running: float) -> None:
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
                found = self._separate(self.average, mixture, counts)
                for k in range(len(mixture)):
                    one = slice(k, k + 1)
                    losses.append(
                        float(
                            loss(
                                found[one], talkers[one], mixture[one], background[one],
                                counts[one], recipe.loss,
                            )
                        )
                    )
                    for name, value in scores(found[k], talkers[k], mixture[k], int(counts[k])):
                        gains.setdefault(name, []).append(value)
        row = {
            "step": self.at.step,
            "hours": round(self.at.seconds / 3600, 4),
            "lr": learning_rate(self.at.step, recipe.training),
            "train_loss": round(running, 4),
            "validation_loss": round(float(np.mean(losses)), 4),
            **{name: round(float(np.mean(v)), 3) for name, v in sorted(gains.items())},
        }
        self.at.rows.append(row)
        log.info("%s", ", ".join(f"{k} {v:g}" for k, v in row.items()))
        if row["validation_loss"] < self.at.best:
            self.at.best, self.at.best_step = row["validation_loss"], self.at.step
            self._keep(BEST, self.average)
        curve.write(self.at.rows, self.folder / CURVE)

    def _keep(self, name: str, network: BandSplit) -> None:
        part = self.folder / f".{name}.part"
        save(network, part, {"recipe": self.recipe.name, "step": str(self.at.step)})
        part.replace(self.folder / name)

    # ------------------------------------------------------------------ files

    def _corpus(self, manifests: Sequence[Path], split: str) -> Corpus:
        cache = self.folder / f"audio-{split}.npz"
        found = read_corpus(manifests, self.recipe.data, split, cache=cache)
        needed = 1 if self.recipe.task == "background" else self.recipe.mixing.talkers
        if len(found.speakers) < needed:
            raise InputError(
                f"{len(found.speakers)} speakers for {split}: at least {needed} are needed",
                "Name speakers in validation_speakers of the recipe, and give more data.",
            )
        return found

    def _checkpoint(self) -> None:
        state = {
            "recipe": self.recipe.digest,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.at.step,
            "seconds": self.at.seconds,
            "best": self.at.best,
            "best_step": self.at.best_step,
            "rows": self.at.rows,
        }
        part = self.folder / f".{LAST}.part"
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / LAST)

    def _resume(self) -> None:
        path = self.folder / LAST
        try:
            state: Mapping[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{path} cannot be read: {reason}", "Give another -o.") from None
        if state["recipe"] != self.recipe.digest:
            raise ConfigError(
                f"{self.folder} holds a training of another recipe",
                "Give another -o, and the old weights with --start where they should be used.",
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.at = Progressed(
            state["step"], state["seconds"], state["best"], state["best_step"], list(state["rows"])
        )
        log.info("going on from step %d", self.at.step)


def learning_rate(step: int, params: TrainingParams) -> float:
    """Warm-up, a plateau, and a fall to zero over the last share of the steps."""
    rise = min(1.0, step / max(1, params.warmup))
    fall = max(1.0, params.steps * params.decay_share)
    return params.lr * rise * min(1.0, max(0.0, (params.steps - step + 1) / fall))


def scores(
    found: Tensor, talkers: Tensor, mixture: Tensor, count: int
) -> Iterator[tuple[str, float]]:
    """SI-SDR improvement of one scene by its number of talkers; of a lone talker SI-SDR itself."""
    audible = [j for j in range(count) if float(talkers[j].square().sum()) > 0]
    if len(audible) < count or count == 0:
        return
    pairs = -si_sdr(found[:count, None], talkers[None, :count])
    value, _ = assign(pairs[None], torch.tensor([count], device=found.device))
    before = si_sdr(mixture[None], talkers[:count]).mean()
    yield f"si_sdri_{count}", float(-value[0] - before)
    yield f"si_sdr_{count}", float(-value[0])
