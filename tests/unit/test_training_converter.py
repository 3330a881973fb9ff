"""Training the converter: what an example holds, and resuming to the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

from podtool.engines import converter_frames as seen
from podtool.engines.protocols import EngineContext
from podtool.engines.voice_podtool import Network
from podtool.engines.voice_podtool_model import ConverterParams
from podtool.engines.world_frames import BANDS, BINS, CENTRES, TO_MEL
from podtool.errors import ConfigError
from podtool.store import ModelStore
from podtool.store.table import ModelTable
from podtool.training import converter, curve
from podtool.training.converter import ConverterCourse, Examples, Person, stretches, warped
from podtool.training.corpus import Clip, DataParams
from podtool.training.recipe import (
    ConverterLoss,
    ConverterRecipe,
    CourseParams,
    ExampleParams,
    read_converter_recipe,
)
from podtool.training.utterances import UNKNOWN, Spoken, disguised, some_minutes

Make = Callable[..., ConverterCourse]
TINY = ConverterRecipe(
    "tiny",
    "converter",
    network=ConverterParams(
        channels=8, sound_layers=1, voice_layers=1, sounds=4, heads=2, keys=4, voice=4
    ),
    data=DataParams(validation_speakers=("v4", "v5"), noise_kinds=()),
    examples=ExampleParams(frames=20, said=1, known=2),
    training=CourseParams(
        steps=6, batch=2, lr=3e-3, warmup=2, ema=0.9, precision="fp32", checkpoint_every=3,
        validate_every=3, validation_scenes=4,
    ),
)  # fmt: skip


def spoken(seed: int, frames: int = 150, copies: int = 1) -> Spoken:
    """A person whose sounds are three, each with its envelope, phone and states."""
    rng = np.random.default_rng(seed)
    sound = rng.integers(0, 3, -(-frames // 12)).repeat(12)[:frames]
    own = np.random.default_rng(seed % 7).normal(0, 0.3, BANDS)
    means = np.random.default_rng(100).normal(0, 1.5, (3, BANDS)) - 8.0
    codes = np.random.default_rng(101).normal(0, 1.0, (3, seen.STATES))
    count = frames * 160 // seen.STEP
    at = np.minimum((np.arange(count) * seen.STEP + seen.CENTRE) // 160, frames - 1)
    states = codes[sound[at]] + rng.normal(0, 0.1, (1 + copies, count, seen.STATES))
    return Spoken(
        (means[sound] + own).astype(np.float16),
        np.where(sound > 0, 120.0 + 10 * seed, 0.0).astype(np.float32),
        (sound + 1).astype(np.uint8),
        states.astype(np.float16),
    )


class Fake:
    """In place of the recogniser: each clip's person and number decide what is heard."""

    def __init__(self, context: EngineContext, folder: Path, copies: int) -> None:
        self.copies = copies

    def hear(self, clip: Clip) -> Spoken:
        return spoken(int(clip.speaker.removeprefix("v")), copies=self.copies)


@pytest.fixture()
def make(tiny_training: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(converter, "Listener", Fake)
    monkeypatch.setattr(curve, "draw", lambda rows, path: None)

    def made(name: str = "run", changed: bool = False, **changes: Any) -> ConverterCourse:
        recipe = replace(TINY, training=replace(TINY.training, **changes))
        folder, manifest = tmp_path / name, tiny_training[1]
        context = EngineContext(store=ModelStore())
        return ConverterCourse(recipe, [manifest], folder, context, cache=tmp_path, changed=changed)

    return made


def weights(of: ConverterCourse) -> dict[str, torch.Tensor]:
    networks = {"network": of.network, "average": of.average}
    return {f"{n}.{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}


def test_a_resumed_training_is_the_training_that_was_not_stopped(make: Make) -> None:
    whole = make("whole")
    whole.run()
    stopped = make("stopped")
    outcome = stopped.run(stopping=lambda: stopped.at.step == 4)
    assert outcome.interrupted and outcome.step == 4
    resumed = make("stopped")
    assert resumed.at.step == 4
    resumed.run()
    a, b = weights(whole), weights(resumed)
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
    kept = [(c.folder / "best.safetensors").read_bytes() for c in (whole, resumed)]
    assert kept[0] == kept[1]


def test_training_learns(make: Make) -> None:
    course = make(steps=100, validate_every=100)
    course.run()
    first = float(course._loss(make("other").network, next(make("other")._batches())[0]).detach())
    last = float(course._loss(course.network, next(make("other")._batches())[0]).detach())
    assert last < 0.6 * first
    row = course.at.rows[-1]
    assert row["phone_error"] < 0.3 and row["mcd"] < 6


def test_from_the_command_line_to_an_engine(
    make: Make, tiny_training: tuple[Path, Path], run: Callable[..., Result], tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\ntask = "converter"\n[network]\nchannels = 8\nsound_layers = 1\n'
        'voice_layers = 1\nsounds = 4\n[data]\nvalidation_speakers = ["v4", "v5"]\n'
        "noise_kinds = []\n[examples]\nframes = 20\nsaid = 1\nknown = 2\n"
        "[training]\nsteps = 4\nbatch = 2\nvalidate_every = 2\nvalidation_scenes = 4\n"
    )
    folder = tmp_path / "made"
    command = ("train", "converter", recipe, "--data", tiny_training[1], "-o", folder)
    done = run(*command, "--threads", 1, "--licence", "MIT")
    assert done.exit_code == 0, done.stderr
    assert "step 4 of 4" in done.stderr and "phones wrong" in done.stderr
    rows = {r["name"]: r for r in map(json.loads, done.stdout.splitlines()) if "name" in r}
    assert rows["steps"]["value"] == 4 and rows["mcd"]["unit"] == "dB"
    exported = {path.name for path in (folder / "export").iterdir()}
    assert {"tiny.safetensors", "tiny.onnx", "tiny.md"} <= exported
    card = (folder / "export" / "tiny.md").read_text()
    assert "consent" in card and "v4, v5" in card and "| Buzzes | CC0-1.0 | 4 |" in card
    assert Network(folder / "export" / "tiny.onnx", 1).sounds == 4
    told = run("train", "export", folder, "-o", tmp_path / "out", "--id", "own")
    model = ModelTable.parse(told.stdout, "told").models["own"]
    assert model.stage == "conversion" and model.files[0].converted == "converter.onnx"
    refused = run("train", "converter", "background", *command[3:])
    assert refused.exit_code == 4 and "podtool train separator" in refused.stderr


def test_another_recipe_goes_on_only_when_told(make: Make) -> None:
    make().run()
    with pytest.raises(ConfigError, match="another recipe"):
        make(lr=1e-4)
    assert make(changed=True, lr=1e-4).at.step == 6
    about = json.loads((make(changed=True, lr=1e-4).folder / "training.json").read_text())
    assert about["speakers"] == 4 and about["validation_speakers"] == 2


def test_an_example_is_of_one_person_and_of_the_seed_and_the_index() -> None:
    people = [Person([spoken(seed), spoken(seed + 7)]) for seed in range(3)]
    params = ExampleParams(frames=20, said=2, known=3)
    a, b = (Examples(people, params, 5, 100)[17] for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[3], Examples(people, params, 6, 100)[17][3])
    states, shape, pitch, cepstra, phones, speech, voice = a
    assert states.shape == (5, 20, seen.STATES) and shape.shape == (5, 20, seen.SHAPE)
    assert pitch.shape == (5, 20, seen.PITCH) and cepstra.shape == (5, 20, seen.CEPSTRA)
    assert phones.shape == speech.shape == (5, 20) and voice.shape == (seen.VOICE,)


def test_what_is_disguised_is_what_is_said_and_not_what_is_known() -> None:
    person = Person([spoken(3)])
    same = ExampleParams(frames=20, said=2, known=2, disguise_share=0.0)
    other = replace(same, disguise_share=1.0)
    plain, masked = (Examples([person], p, 1, 9)[4] for p in (same, other))
    for which in (0, 1):  # states, shape
        assert not torch.allclose(plain[which][:2], masked[which][:2], atol=1e-3)
        assert torch.equal(plain[which][2:], masked[which][2:])
    assert torch.equal(plain[3], masked[3])  # what is to be given is as it was said


def test_stretches_do_not_overlap_while_there_is_enough() -> None:
    rng = np.random.default_rng(0)
    for length in (100, 130, 1000):
        frames = np.concatenate(stretches(length, 5, 20, rng))
        assert len(set(frames.tolist())) == 100 and frames.max() < length
    assert all(len(part) == 20 for part in stretches(50, 5, 20, rng))
    assert np.concatenate(stretches(7, 2, 20, rng)).max() == 6


def test_warping_moves_formants_by_the_factor() -> None:
    envelope = -(((CENTRES - 1500) / 300) ** 2)[None].astype(np.float32)
    moved = CENTRES[warped(envelope, 0.2)[0].argmax()]
    assert abs(np.log(moved / CENTRES[envelope[0].argmax()]) - 0.2) < 0.05
    assert warped(envelope, 0.0) is envelope


def test_a_disguise_changes_the_voice_and_keeps_the_length() -> None:
    f0 = np.where(np.arange(50) % 5, 120.0, 0.0)
    spectrum = np.exp(-(((np.arange(BINS) - 100) / 20) ** 2))[None].repeat(50, 0)
    found = [disguised(f0, spectrum, spectrum * 0, np.random.default_rng(k)) for k in range(20)]
    peaks = {int((np.log(s[0] + 1e-16) @ TO_MEL.T).argmax()) for _, s, _ in found}
    assert len(peaks) > 4
    for other, s, a in found:
        assert other.shape == f0.shape and s.shape == a.shape == spectrum.shape
        assert np.array_equal(other > 0, f0 > 0) and 0.4 < other.max() / 120 < 2.5


def test_some_minutes_are_enough_and_the_first_of_more() -> None:
    clips = [Clip(f"{k}", "a", np.zeros((1, 160000), np.int16), 1.0) for k in range(12)]
    one, more = some_minutes(clips, 0.5, 3), some_minutes(clips, 1.0, 3)
    assert len(one) == 3 and len(more) == 6 and more[:3] == one
    assert len(some_minutes(clips, 9.0, 3)) == 12


def test_states_lie_where_the_recogniser_heard_them() -> None:
    left, share = seen.states_at(100, 40)
    at = (left + share) * seen.STEP + seen.CENTRE
    assert np.allclose(at[3:90], np.arange(3, 90) * 160)
    ramp = np.arange(40, dtype=np.float32)[:, None] * np.ones((1, seen.STATES), np.float32)
    assert np.allclose(seen.interpolated(ramp, 100)[3:90, 0], (at[3:90] - seen.CENTRE) / seen.STEP)
    assert seen.interpolated(ramp[:1], 5).shape == (5, seen.STATES)


def test_frames_without_a_known_phone_teach_no_phone(make: Make) -> None:
    course = make()
    batch = list(next(course._batches())[0])
    before = float(course._loss(course.network, tuple(batch)).detach())
    batch[4] = torch.full_like(batch[4], UNKNOWN)
    without = float(course._loss(course.network, tuple(batch)).detach())
    course.recipe = replace(course.recipe, loss=ConverterLoss(phones=0.0))
    assert without == pytest.approx(float(course._loss(course.network, tuple(batch)).detach()))
    assert without < before


def test_the_shipped_recipe() -> None:
    recipe = read_converter_recipe("converter")
    assert recipe.name == "converter" and recipe.about
    assert {"jfk", "ljspeech", "vctk-p225"} < set(recipe.data.exclude_speakers)
    with pytest.raises(ConfigError, match="task"):
        read_converter_recipe("background")
