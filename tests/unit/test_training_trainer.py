"""The trainer: resumed bit by bit, averaged, stopped in time, and safe against what goes wrong."""

from __future__ import annotations

import csv
import errno
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from podtool.errors import ConfigError, EngineFailure, InputError, ModelError, OutputError
from podtool.training import course, curve, trainer
from podtool.training.card import read_curve
from podtool.training.course import learning_rate
from podtool.training.mixing import Mixer, Scene
from podtool.training.recipe import TrainingParams, read_recipe
from podtool.training.trainer import Trainer, scores

Make = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else here."""
    monkeypatch.setattr(curve, "draw", lambda rows, path: None)


@pytest.fixture()
def make(tiny_training: tuple[Path, Path], tmp_path: Path) -> Make:
    """A trainer of the tiny recipe, with changes, in a folder of that name."""
    path, manifest = tiny_training
    recipe = read_recipe(path)

    def made(name: str = "run", options: dict[str, Any] | None = None, **changes: Any) -> Trainer:
        other = replace(recipe, training=replace(recipe.training, **changes))
        return Trainer(other, [manifest], tmp_path / name, cache=tmp_path, **(options or {}))

    return made


def state(of: Trainer) -> dict[str, torch.Tensor]:
    """Everything that training changes."""
    moments = {
        f"optimiser.{k}.{name}": value
        for k, values in of.optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }
    networks = {"network": of.network, "average": of.average}
    weights = {f"{n}.{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}
    return {**weights, **moments}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def moved(of: Trainer, start: dict[str, torch.Tensor]) -> bool:
    return any(
        not torch.equal(v, start[f"network.{k}"]) for k, v in of.network.state_dict().items()
    )


def copy(of: Trainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in state(of).items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_training_is_the_training_that_was_not_stopped(
    make: Make, precision: str
) -> None:
    whole = make("whole", precision=precision)
    whole.run()
    first = make("parts", precision=precision)
    asked = iter((False, False, True))
    outcome = first.run(stopping=lambda: next(asked))
    assert outcome.interrupted and outcome.step == 3  # between two checkpoints
    second = make("parts", precision=precision)
    assert second.at.step == 3
    assert not second.run().interrupted
    assert_same(state(whole), state(second))
    assert whole.at.running == second.at.running
    for a, b in zip(whole.at.rows, second.at.rows, strict=True):
        assert {**a, "hours": 0} == {**b, "hours": 0}
    weights = [(w.folder / "best.safetensors").read_bytes() for w in (whole, second)]
    assert weights[0] == weights[1]


def test_workers_change_nothing(make: Make) -> None:
    alone, helped = make("alone", steps=2), make("helped", {"workers": 1}, steps=2)
    alone.run()
    helped.run()
    assert_same(state(alone), state(helped))


def test_training_learns(make: Make) -> None:
    chosen = make(steps=100, lr=1e-2)
    chosen.at.step = 10
    batches = next(chosen._batches())
    losses = [chosen._step(batches) for _ in range(40)]
    assert losses[-1] < losses[0] - 2


def test_accumulated_batches_are_one_large_batch(
    make: Make, tiny_training: tuple[Path, Path]
) -> None:
    path, _ = tiny_training
    grads = []
    for name, batch, accumulate in (("large", 4, 1), ("small", 2, 2)):
        chosen = make(name, batch=batch, accumulate=accumulate, precision="fp32", clip=1e9)
        fixed = replace(chosen.recipe.mixing, counts=(0.0, 1.0), silence_share=0.0)
        chosen.recipe = replace(chosen.recipe, mixing=fixed)
        chosen.at.step = 1
        chosen._step(next(chosen._batches()))
        named = chosen.network.named_parameters()  # the grouping loss is off: no gradient
        grads.append([p.grad for name, p in named if not name.startswith("group.")])
    for a, b in zip(*grads, strict=True):
        assert a is not None and b is not None and torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_average_follows_the_weights(make: Make) -> None:
    chosen = make(steps=1, ema=0.05)
    before = copy(chosen)
    chosen.run()
    for name, now in chosen.network.state_dict().items():
        mean, start = chosen.average.state_dict()[name], before[f"network.{name}"]
        assert torch.allclose(mean, 0.05 * start + 0.95 * now, atol=1e-7)
    slow = make("slow", steps=1, ema=0.999)  # which would begin as what was drawn
    slow.run()
    name, now = next(iter(slow.network.state_dict().items()))
    mean, start = slow.average.state_dict()[name], before[f"network.{name}"]
    assert torch.allclose(mean, start + (now - start) * 9 / 11, atol=1e-7)


def test_a_training_of_a_cpu_goes_on_where_gradients_are_scaled(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(steps=2).run()
    plain = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: plain("cpu"))  # as on a GPU
    scaled = make(steps=4)
    assert scaled.at.step == 2 and scaled.scaler.is_enabled()
    before = copy(scaled)
    scaled.run()
    assert scaled._bad == 0 and moved(scaled, before)
    scaled.scaler.update(128.0)
    scaled._checkpoint()
    assert make(steps=6).scaler.get_scale() == 128.0


def test_learning_rate_rises_stays_and_falls() -> None:
    params = TrainingParams(steps=100, lr=1.0, warmup=10, decay_share=0.2)
    rates = [learning_rate(step, params) for step in range(1, 101)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert set(rates[10:81]) == {1.0}
    left = np.arange(19, 0, -1) / 20
    assert rates[81:] == pytest.approx((1 - np.cos(np.pi * left)) / 2)
    assert learning_rate(5, TrainingParams(steps=5, warmup=0, decay_share=0.0, lr=1.0)) == 1.0


def test_no_better_for_long_enough_stops_and_stays_stopped(make: Make) -> None:
    chosen = make(steps=100, lr=0.0, weight_decay=0.0, patience=2)
    outcome = chosen.run()
    assert outcome.stopped_early and outcome.step == 6 and outcome.best["step"] == 2
    again = make(steps=100, lr=0.0, weight_decay=0.0, patience=2)
    outcome = again.run()
    assert outcome.stopped_early and outcome.step == 6
    more = make(steps=8, lr=0.0, weight_decay=0.0, patience=9).run()
    assert not more.stopped_early and more.step == 8


def test_progress_is_of_this_run_and_every_validation_is_told(make: Make) -> None:
    make(steps=2).run()
    seen: list[tuple[float, float]] = []
    rows: list[dict[str, float]] = []
    make().run(lambda event: seen.append((event.done, event.total)), rows.append)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [row["step"] for row in rows] == [4, 6]


def test_the_curve_is_written_as_table_and_picture(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    chosen = make()
    chosen.run()
    rows = read_curve(chosen.folder / "curve.csv")
    assert rows == chosen.at.rows and [row["step"] for row in rows] == [2, 4, 6]
    with (chosen.folder / "curve.csv").open(newline="") as file:
        assert {"lr", "hours", "train_loss", "validation_loss"} <= set(next(csv.reader(file)))
    assert (chosen.folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled: Callable[[int], bool]) -> None:
    """Training scenes of some numbers hold NaN."""
    clean = Mixer.scene

    def scene(self: Mixer, index: int) -> Scene:
        found = clean(self, index)
        training = self._seed != trainer.VALIDATION_SEED
        return (
            replace(found, mixture=found.mixture * np.nan) if training and spoiled(index) else found
        )

    monkeypatch.setattr(Mixer, "scene", scene)


def test_one_bad_scene_costs_its_step_and_no_more(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda index: index == 0)
    one = make("one", steps=1)
    start = copy(one)
    one.run()
    assert not moved(one, start)
    two = make("two", steps=4)
    outcome = two.run()
    assert moved(two, start) and math.isfinite(outcome.best["validation_loss"])
    assert all(torch.isfinite(value).all() for value in state(two).values())


def test_nothing_but_bad_scenes_ends_the_training(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda index: True)
    monkeypatch.setattr(course, "BAD_STEPS", 3)
    with pytest.raises(EngineFailure, match="no finite gradient in 3 steps"):
        make().run()


def test_a_full_disk_leaves_the_checkpoint_before(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(steps=2).run()
    chosen = make()
    before = (chosen.folder / "last.pt").read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("podtool.training.files.os.fsync", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        chosen.run()
    assert caught.value.hint is not None and "same command" in caught.value.hint
    assert (chosen.folder / "last.pt").read_bytes() == before
    assert not list(chosen.folder.glob("*.part")) and not list(chosen.folder.glob(".*.part"))
    monkeypatch.setattr("podtool.training.files.os.fsync", lambda handle: None)
    assert make().run().step == 6


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_checkpoints_that_are_none(make: Make, tmp_path: Path) -> None:
    chosen = make(steps=2)
    chosen.run()
    last = chosen.folder / "last.pt"
    good = torch.load(last, weights_only=True)
    torch.save({**good, "extra": Evil(tmp_path / "owned")}, last)
    with pytest.raises(ModelError, match="last.pt cannot be read"):
        make()
    assert not (tmp_path / "owned").exists()
    for content in (b"", b"PK\x03\x04", pickle.dumps([1, 2], 2)):
        last.write_bytes(content)
        with pytest.raises(ModelError, match="last.pt cannot be read"):
            make()
    torch.save([1, 2], last)
    with pytest.raises(ModelError, match="last.pt cannot be read"):
        make()
    for missing in ("network", "average", "optimiser"):
        torch.save({k: v for k, v in good.items() if k != missing}, last)
        with pytest.raises(ModelError, match="does not fit"):
            make()
    short = {k: v for k, v in good["network"].items() if not k.startswith("norm")}
    torch.save({**good, "network": short}, last)
    with pytest.raises(ModelError, match="does not fit"):
        make()
    torch.save({k: v for k, v in good.items() if k != "running"}, last)  # as once written
    assert make().at.step == 2


def test_another_recipe_goes_on_only_when_told(make: Make) -> None:
    make(steps=2).run()
    with pytest.raises(ConfigError, match="another recipe"):
        make(lr=0.1)
    chosen = make(options={"changed": True}, lr=1e-4)
    assert chosen.at.step == 2 and chosen.at.best == math.inf
    outcome = chosen.run()
    assert outcome.step == 6 and outcome.best["step"] > 2
    assert '"step": 2' in (chosen.folder / "training.json").read_text()
    assert make(lr=1e-4).at.step == 6  # now it is of this recipe


def test_weights_to_begin_with(make: Make, tmp_path: Path) -> None:
    first = make("first", steps=2)
    first.run()
    start = first.folder / "best.safetensors"
    second = make("second", {"start": start}, steps=2)
    assert_same(
        {k: v for k, v in state(second).items() if k.startswith("network.")},
        {f"network.{k}": v for k, v in first.average.state_dict().items()},
    )
    second.run()
    assert '"best.safetensors"' in (second.folder / "training.json").read_text()
    start.unlink()
    make("second", steps=4).run()  # they are needed once, and told for ever
    assert '"best.safetensors"' in (second.folder / "training.json").read_text()
    with pytest.raises(ModelError):
        make("third", {"start": tmp_path / "none.safetensors"})


def test_too_few_people_to_validate_with(tiny_training: tuple[Path, Path], tmp_path: Path) -> None:
    path, manifest = tiny_training
    path.write_text(path.read_text().replace('["v4", "v5"]', '["v4"]'))
    with pytest.raises(InputError, match="1 speakers for validation: at least 2"):
        Trainer(read_recipe(path), [manifest], tmp_path / "run")


def test_scenes_for_speech_and_background_are_of_one_voice(make: Make) -> None:
    chosen = make()
    mixer = Mixer(chosen.data, chosen.recipe.mixing, 0, None)
    index = next(i for i in range(50) if mixer.scene(i).count == 2)
    both = mixer.scene(index)
    mixture, talkers, background, count = trainer.Scenes(mixer, "background", 50)[index]
    assert talkers.shape == (1, len(both.mixture)) and int(count) == 1
    assert np.allclose(talkers[0], both.talkers.sum(0)) and np.allclose(mixture, both.mixture)
    apart = trainer.Scenes(mixer, "talkers", 50)[index]
    assert np.array_equal(apart[1], both.talkers) and int(apart[3]) == 2


def test_scores_are_improvements_whatever_the_order() -> None:
    generator = torch.Generator().manual_seed(0)
    talkers, hiss = (torch.randn(3, 4000, generator=generator) for _ in range(2))
    mixture = talkers.sum(0)
    found = dict(scores(talkers[[1, 0, 2]] + 0.1 * hiss, talkers, mixture, 3))
    assert found["si_sdr_3"] == pytest.approx(20, abs=0.5)
    assert found["si_sdri_3"] == pytest.approx(20 + 3, abs=0.7)
    nothing = dict(scores(mixture.expand(3, -1), talkers, mixture, 3))
    assert nothing["si_sdri_3"] == pytest.approx(0, abs=1e-3)
    alone = dict(scores(talkers + 0.1 * hiss, talkers, talkers[0], 1))
    assert alone == {"si_sdr_clean": pytest.approx(20, abs=0.5)}
    talkers[1] = 0
    assert not dict(scores(talkers, talkers, mixture, 3))  # nobody to compare with
    assert not dict(scores(talkers, talkers, mixture, 0))
