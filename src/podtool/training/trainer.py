"""Training a separator from a recipe: scenes mixed while it trains, scored on people kept out.

The folder holds rooms and decoded audio beside what every course has. The scene of a step depends
on the seed and the step alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from podtool.engines.separation_podtool_model import (
    BandSplit,
    band_powers,
    load,
    save,
    separate_and_group,
)
from podtool.errors import InputError
from podtool.training import widen
from podtool.training.corpus import Corpus, read_corpus
from podtool.training.course import Batch, Course
from podtool.training.losses import assign, grouping, loss, si_sdr
from podtool.training.mixing import Mixer
from podtool.training.recipe import Recipe
from podtool.training.rooms import Rooms

VALIDATION_SEED = 20_000_003  # scenes that no training step draws
CLEAN_DB = 30.0  # a mixture that is that near to its talkers has nothing to separate


class Scenes(Dataset[Batch]):
    """Scene `index` of a mixer as tensors for a task: mixture, talkers, background, count."""

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


class Trainer(Course):
    """One training of a separator; `run` goes on from where the last one stopped."""

    recipe: Recipe
    network: BandSplit
    average: BandSplit

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
        `changed`, and what is raised: as `Course`; InputError for data.
        """
        super().__init__(recipe, folder, device, changed)
        self.workers = workers
        self.rooms = None
        if recipe.mixing.reverb_share > 0:
            self.rooms = Rooms.make(recipe.training.rooms, recipe.seed, folder / "rooms.npz")
        audio = (cache or folder) / "audio.npy"
        self.data = self._corpus(manifests, "train", audio)
        self.held_out = self._corpus(manifests, "validation", audio)
        torch.manual_seed(recipe.seed)
        network = BandSplit(recipe.network)
        if start is not None and self.before is None:
            widen.fill(network, load(start))
        self._begin(network, BandSplit(recipe.network))
        self._describe(manifests, start)

    def _items(self) -> Dataset[Batch]:
        params = self.recipe.training
        mixer = Mixer(self.data, self.recipe.mixing, self.recipe.seed, self.rooms)
        return Scenes(mixer, self.recipe.task, params.steps * params.batch * params.accumulate)

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(network, BandSplit)
        mixture, talkers, background, counts = (x.to(self.device, non_blocking=True) for x in batch)
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

    def _validation(self) -> tuple[list[float], dict[str, list[float]]]:
        """On scenes of people and backgrounds kept out: losses, SI-SDR and its improvement."""
        recipe = self.recipe
        mixer = Mixer(self.held_out, recipe.mixing, VALIDATION_SEED, self.rooms)
        scenes = Scenes(mixer, recipe.task, recipe.training.validation_scenes)
        losses: list[float] = []
        gains: dict[str, list[float]] = {}
        for batch in DataLoader(scenes, recipe.training.batch):
            mixture, talkers, background, counts = (x.to(self.device) for x in batch)
            found, _ = self._separate(self.average, mixture, counts)
            for k in range(len(mixture)):
                one = slice(k, k + 1)
                parts = talkers[one], mixture[one], background[one], counts[one]
                losses.append(float(loss(found[one], *parts, recipe.loss)))
                for name, value in scores(found[k], talkers[k], mixture[k], int(counts[k])):
                    gains.setdefault(name, []).append(value)
        return losses, gains

    def _save(self, path: Path, facts: dict[str, str]) -> None:
        save(self.average, path, facts)

    def _facts(self) -> dict[str, Any]:
        return {
            "credits": self.data.credits,
            "speakers": len(self.data.speakers),
            "speech_hours": round(self.data.seconds / 3600, 3),
            "validation_speakers": len(self.held_out.speakers),
            "unmatched": self.data.unmatched,
        }

    def _corpus(self, manifests: Sequence[Path], split: str, cache: Path) -> Corpus:
        found = read_corpus(manifests, self.recipe.data, split, cache=cache)
        needed = 1 if self.recipe.task == "background" else self.recipe.mixing.talkers
        if len(found.speakers) < needed:
            raise InputError(
                f"{len(found.speakers)} speakers for {split}: at least {needed} are needed",
                "Name speakers in validation_speakers of the recipe, and give more data.",
            )
        return found


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
