"""Families of separating networks, trained for the same time of one core and compared.

usage: python benchmarks/families.py [--only NAME ...] [--minutes 10] [--data MANIFEST ...]
                                     [--cache FOLDER] [--check]

Small causal forms (family_networks.py) of about the same cost, on the scenes, the loss and the
optimiser of the recipe talkers-pairs. The time is that which the process spends on a core, so other
processes do not matter; scenes per second, and so the steps, are the family's own. Then, of the
averaged weights on the validation scenes (people that training did not hear):

  family_si_sdr_improvement   dB, of two talkers; after half of the time as well
  family_cpu                  ms on one core in torch for 100 ms of audio: of 3 s at once, and of
                              96 ms at once, as live
  family_parameters           million
  family_latency              ms, of the algorithm
  family_db_per_ms            improvement by cost, of both kinds

A table of all is on stderr. `--check` trains nothing: shapes, causality, cost. `--data` defaults to
the manifest of PODTOOL_DATA; `--cache` keeps the decoded audio.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from family_networks import (
    TALKERS,
    Family,
    Ours,
    TfGridNet,
    conv_tasnet,
    dprnn,
    mossformer,
    skim,
)
from harness import data_folder, say
from torch import Tensor
from torch.utils.data import DataLoader

from podtool.engines.separation_podtool_model import band_powers
from podtool.training.corpus import RATE, Corpus, read_corpus
from podtool.training.course import keep_memory
from podtool.training.losses import grouping, loss
from podtool.training.mixing import Mixer
from podtool.training.recipe import Recipe, read_recipe
from podtool.training.trainer import VALIDATION_SEED, Scenes, scores

RECIPE = read_recipe("talkers-pairs")
FAMILIES: dict[str, Callable[[], Family]] = {
    "conv-tasnet": conv_tasnet,
    "dprnn": dprnn,
    "skim": skim,
    "tf-gridnet": TfGridNet,
    "mossformer2": mossformer,
    "ours": lambda: Ours(RECIPE.network),
}
UNGROUPED = ", no grouping"  # a family with embeddings, trained without the loss on them
NAMES = (*FAMILIES, *(name + UNGROUPED for name in ("tf-gridnet", "ours")))
WHOLE, ALONE = 3 * RATE, 1536  # samples that are worked on at once; 96 ms are whole frames of all
FALLS = 0.2  # share of the time over which the learning rate falls to zero
Batch = list[Tensor]


@dataclass(slots=True)
class Result:
    """One family, trained: improvements after half and all of the time."""

    name: str
    half_db: float
    db: float
    steps: int
    precision: str
    whole_ms: float
    alone_ms: float
    parameters: float
    latency_ms: float


def recipe_of(name: str) -> Recipe:
    """The recipe, with the grouping loss where the network takes it and it is asked for."""
    if name.endswith(UNGROUPED):
        return replace(RECIPE, loss=replace(RECIPE.loss, grouping=0.0))
    return RECIPE


def drawn(name: str) -> Family:
    torch.manual_seed(RECIPE.seed)
    return FAMILIES[name.removesuffix(UNGROUPED)]()


# ---------------------------------------------------------------- training


def loss_of(network: Family, batch: Batch, recipe: Recipe, precision: str) -> Tensor:
    mixture, talkers, background, counts = batch
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found, groups = network(mixture)
    total = loss(found, talkers[:, :TALKERS], mixture, background, counts, recipe.loss)
    if groups is not None and network.grid is not None and recipe.loss.grouping:
        with torch.no_grad():
            powers = band_powers(talkers, network.grid)
        total = total + recipe.loss.grouping * grouping(groups, powers)
    return total


class Training:
    """One family on its way, in the trainer's manner; the rate follows the time that is spent."""

    def __init__(self, name: str, train: Corpus, minutes: float) -> None:
        self.recipe, self.seconds = recipe_of(name), minutes * 60
        self.network = drawn(name)
        self.average = copy.deepcopy(self.network)
        params = self.recipe.training
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=params.lr,
            betas=(0.9, 0.98),
            weight_decay=params.weight_decay,
        )
        mixer = Mixer(train, self.recipe.mixing, self.recipe.seed, None)
        scenes = Scenes(mixer, self.recipe.task, params.steps * params.batch)
        self.batches: Iterator[Batch] = iter(DataLoader(scenes, params.batch))
        self.precision = self._faster(next(iter(DataLoader(scenes, params.batch))))
        self.step, self.spent, self.losses = 0, 0.0, [0.0]

    def until(self, share: float) -> None:
        """Train until that share of the time is spent."""
        while self.spent < share * self.seconds:
            began = time.process_time()
            self.losses.append(self._step())
            self.spent += time.process_time() - began
            if self.step % 50 == 0:
                mean = float(np.mean(self.losses[-50:]))
                print(f"  step {self.step}, {self.spent:.0f} s: {mean:.3f}", file=sys.stderr)

    def _step(self) -> float:
        params = self.recipe.training
        self.step += 1
        rise = min(1.0, self.step / params.warmup)
        fall = min(1.0, max(0.0, 1 - self.spent / self.seconds) / FALLS)
        for group in self.optimiser.param_groups:
            group["lr"] = params.lr * rise * fall
        self.optimiser.zero_grad(set_to_none=True)
        value = loss_of(self.network, next(self.batches), self.recipe, self.precision)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), params.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        decay = min(params.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for mean, now in pairs:
                mean.lerp_(now, 1 - decay)
        return float(value.detach())

    def _faster(self, batch: Batch) -> str:
        """The precision in which a step costs less on this processor; nothing is learnt."""
        cost: dict[str, float] = {}
        for precision in ("bf16", "fp32", "bf16", "fp32"):
            began = time.process_time()
            loss_of(self.network, batch, self.recipe, precision).backward()
            self.network.zero_grad(set_to_none=True)
            cost[precision] = time.process_time() - began  # the second time counts
        print(f"  s a step: {cost}", file=sys.stderr)
        return min(cost, key=lambda p: cost[p])


def improvement(network: Family, held_out: Corpus) -> float:
    """SI-SDR improvement in dB of the recipe's validation scenes."""
    mixer = Mixer(held_out, RECIPE.mixing, VALIDATION_SEED, None)
    scenes = Scenes(mixer, RECIPE.task, RECIPE.training.validation_scenes)
    gains: list[float] = []
    with torch.inference_mode():
        for mixture, talkers, _, _ in DataLoader(scenes, RECIPE.training.batch):
            found, _ = network(mixture)
            for one, truth, mixed in zip(found, talkers, mixture, strict=True):
                score = dict(scores(one, truth[:TALKERS], mixed, TALKERS))
                gains.append(score[f"si_sdri_{TALKERS}"])
    return float(np.mean(gains))


# ---------------------------------------------------------------- cost and causality


def cost_ms(network: Family, samples: int) -> float:
    """CPU ms for 100 ms of audio, where so many samples' frames are worked on at once."""
    mixture = torch.randn(1, samples - network.extra)
    times = []
    with torch.inference_mode():
        for _ in range(max(7, 20 * RATE // samples)):
            began = time.process_time()
            network(mixture)
            times.append(time.process_time() - began)
    return 1000 * min(times) * 0.1 * RATE / samples


def million(network: Family) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e6


def check(name: str) -> None:
    """Shape, and that the past stays as it was where what is heard later changes."""
    network = drawn(name).eval()
    with torch.inference_mode():
        mixture = torch.randn(2, 2 * RATE - 77)
        found, _ = network(mixture)
        assert found.shape == (2, TALKERS, mixture.shape[1]), name
        for at in (RATE // 2, RATE - 5, 20_011):
            other = mixture.clone()
            other[:, at:] = 3 * torch.randn_like(other[:, at:])
            change = (network(other)[0] - found).abs().amax((0, 1))
            assert change[: at - network.latency + 1].max() < 1e-5, (name, at)
            assert change[at - network.latency + 1 :].max() > 1e-3, (name, at)


# ---------------------------------------------------------------- command


def compare(name: str, train: Corpus, held_out: Corpus, minutes: float) -> Result:
    print(f"== {name}", file=sys.stderr)
    training = Training(name, train, minutes)
    training.until(0.5)
    half_db = improvement(training.average, held_out)
    training.until(1.0)
    network = training.average.eval()
    db = improvement(network, held_out)
    result = Result(
        name,
        half_db,
        db,
        training.step,
        training.precision,
        cost_ms(network, WHOLE),
        cost_ms(network, ALONE),
        million(network),
        1000 * network.latency / RATE,
    )
    tell(result, minutes)
    return result


def tell(r: Result, minutes: float) -> None:
    scenes = RECIPE.training.validation_scenes
    half = f"{r.name}, {minutes / 2:g} min"
    say("family_si_sdr_improvement", r.half_db, "dB", half, scenes)
    say("family_si_sdr_improvement", r.db, "dB", f"{r.name}, {minutes:g} min", scenes)
    say("family_cpu", r.whole_ms, "ms", f"{r.name}, 3 s at once")
    say("family_cpu", r.alone_ms, "ms", f"{r.name}, 96 ms at once")
    say("family_parameters", r.parameters, "million", r.name)
    say("family_latency", r.latency_ms, "ms", r.name)
    say("family_db_per_ms", r.db / r.whole_ms, "dB per ms", f"{r.name}, 3 s at once")
    say("family_db_per_ms", r.db / r.alone_ms, "dB per ms", f"{r.name}, 96 ms at once")


def table(results: list[Result], minutes: float) -> str:
    """Of all, in Markdown."""
    rows = [
        f"| family | steps | {minutes / 2:g} min | {minutes:g} min | ms per 100 ms (live) "
        "| dB per ms (live) | parameters | latency | training in |",
        "|---" * 9 + "|",
    ]
    for r in results:
        cells = (
            r.name,
            r.steps,
            f"{r.half_db:.2f} dB",
            f"{r.db:.2f} dB",
            f"{r.whole_ms:.1f} ({r.alone_ms:.1f})",
            f"{r.db / r.whole_ms:.2f} ({r.db / r.alone_ms:.2f})",
            f"{r.parameters:.2f} M",
            f"{r.latency_ms:.0f} ms",
            r.precision,
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="families of networks, compared")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", default=NAMES)
    parser.add_argument("--minutes", type=float, default=10.0, help="of a core, for each")
    parser.add_argument("--data", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--cache", type=Path, metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="shapes, causality and cost alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    if options.check:
        for name in FAMILIES:
            if name in options.only:
                check(name)
                network = drawn(name).eval()
                costs = f"{cost_ms(network, WHOLE):.1f} ms, alone {cost_ms(network, ALONE):.1f} ms"
                print(f"{name}: {costs}, {million(network):.2f} M", file=sys.stderr)
        return
    manifests = options.data or [data_folder() / "MANIFEST.jsonl"]
    with tempfile.TemporaryDirectory() as scratch:
        cache = (options.cache or Path(scratch)) / "audio.npy"
        train, held_out = (
            read_corpus(manifests, RECIPE.data, split, cache) for split in ("train", "validation")
        )
        results = [compare(name, train, held_out, options.minutes) for name in options.only]
    print(table(results, options.minutes), file=sys.stderr)


if __name__ == "__main__":
    main()
