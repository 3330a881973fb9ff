"""The demucs engine on a repository with a tiny model of the real architecture, built here."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.errors import ModelError
from podtool.stages.separate import SeparateParams, separate

pytest.importorskip("demucs")
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Folder:
    """A store that has one folder for every model."""

    path: Path

    def folder(self, model_id: str) -> Path:
        return self.path


def save(folder: Path, package: dict[str, Any], signature: str = "abcd1234") -> Path:
    import torch

    buffer = io.BytesIO()
    torch.save(package, buffer)
    checksum = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    path = folder / f"{signature}-{checksum}.th"
    path.write_bytes(buffer.getvalue())
    return path


def tiny(seed: int = 0) -> dict[str, Any]:
    """An HTDemucs of 20 thousand parameters in the form in which demucs publishes its models."""
    import torch
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(seed)
    options = {
        "channels": 8, "dconv_comp": 2, "dconv_depth": 1, "bottom_channels": 8,
        "t_layers": 1, "t_heads": 2, "t_hidden_scale": 1.0, "segment": Fraction(1, 1),
    }  # fmt: skip
    sources = ["drums", "bass", "other", "vocals"]
    model = HTDemucs(sources, **options)
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    return {
        "klass": HTDemucs, "args": [sources], "kwargs": options, "state": state,
        "training_args": {"epochs": 0},
    }  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    save(folder, tiny())
    (folder / "htdemucs.yaml").write_text("models: ['abcd1234']\nsegment: 1\n")
    return folder


def noise(seconds: float, channels: int, rate: int) -> Audio:
    samples = np.random.default_rng(1).standard_normal((channels, round(seconds * rate)))
    return Audio((0.1 * samples).astype(np.float32), rate)


def test_contract(repository: Path) -> None:
    from podtool.engines.separation_demucs import Demucs

    engine = Demucs.load(EngineContext(store=Folder(repository)))
    audio = noise(1.7, 2, 44100)
    once, again = engine.separate(audio)["speech"], engine.separate(audio)["speech"]
    assert once.samples.shape == audio.samples.shape and once.samples.dtype == np.float32
    assert (once.samples == again.samples).all() and once.samples.any()
    silent = engine.separate(Audio(np.zeros((2, 441), np.float32), 44100))["speech"]
    assert silent.samples.shape == (2, 441) and np.isfinite(silent.samples).all()


def test_it_agrees_with_the_packages_own_loader(repository: Path) -> None:
    import torch
    from demucs.apply import apply_model
    from demucs.pretrained import get_model

    from podtool.engines.separation_demucs import Demucs

    engine = Demucs.load(EngineContext(store=Folder(repository)))
    audio = noise(1.2, 2, 44100)
    model = get_model("htdemucs", repo=repository)
    mixture = torch.from_numpy(audio.samples)
    mean, scale = mixture.mean(), mixture.mean(0).std() + 1e-8
    with torch.no_grad():
        theirs = apply_model(model, ((mixture - mean) / scale)[None], shifts=0)[0, 3] * scale + mean
    ours = engine.separate(audio)["speech"].samples
    assert np.allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 48000), (3, 44100)])
def test_stems_of_any_recording_sum_to_it(repository: Path, channels: int, rate: int) -> None:
    from podtool.engines.separation_demucs import Demucs

    engine = Demucs.load(EngineContext(store=Folder(repository)))
    source = noise(1.1, channels, rate)
    samples = (np.rint(source.samples * 32768) / 32768).astype(np.float32)
    blocks = list(separate(Audio(samples, rate), engine, None, SeparateParams(overlap_s=0.2)))
    total = np.concatenate([b.speech.samples + b.background.samples for b in blocks], axis=1)
    assert (total == samples).all()


def test_a_single_checkpoint_without_a_bag_loads_too(tmp_path: Path) -> None:
    from podtool.engines.separation_demucs import load_repository

    save(tmp_path, tiny())
    assert load_repository(tmp_path).samplerate == 44100


SPECIALISTS = "[[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]]"
SHARED = "[[1., 1., 1., 1.], [1., 1., 1., 0.], [0., 0., 0., 3.], [1., 0., 0., 0.]]"


@pytest.mark.parametrize(("weights", "kept"), [(SPECIALISTS, 1), (SHARED, 2)])
def test_of_a_bag_the_models_that_hear_voices_are_asked(
    tmp_path: Path, weights: str, kept: int
) -> None:
    import torch
    from demucs.apply import apply_model
    from demucs.pretrained import get_model

    from podtool.engines.separation_demucs import DemucsFt

    names = [f"abcd123{n}" for n in range(4)]
    for seed, name in enumerate(names):
        save(tmp_path, tiny(seed), name)
    (tmp_path / "htdemucs_ft.yaml").write_text(f"models: {names}\nweights: {weights}\n")
    engine = DemucsFt.load(EngineContext(store=Folder(tmp_path)))
    assert len(engine._model.models) == kept
    audio = noise(0.9, 2, 44100)
    whole = get_model("htdemucs_ft", repo=tmp_path)
    assert len(whole.models) == 4
    mixture = torch.from_numpy(audio.samples)
    mean, scale = mixture.mean(), mixture.mean(0).std() + 1e-8
    with torch.no_grad():
        theirs = apply_model(whole, ((mixture - mean) / scale)[None], shifts=0)[0, 3] * scale + mean
    assert np.allclose(engine.separate(audio)["speech"].samples, theirs.numpy(), atol=1e-5)


def test_the_fine_tuned_network_alone_is_what_the_store_has(tmp_path: Path) -> None:
    from podtool import engines
    from podtool.engines.separation_demucs import DemucsFt
    from podtool.store import ModelStore

    save(tmp_path, tiny(3))
    engine = DemucsFt.load(EngineContext(store=Folder(tmp_path)))
    audio = noise(0.5, 2, 44100)
    assert engine.separate(audio)["speech"].samples.any()
    status = engines.availability("separation", "demucs-ft", EngineContext(ModelStore(tmp_path)))
    assert not status.available and status.hint == "podtool models pull htdemucs-ft"


def test_a_bag_that_gives_voices_no_weight_is_refused(tmp_path: Path) -> None:
    from podtool.engines.separation_demucs import load_repository

    save(tmp_path, tiny())
    (tmp_path / "bag.yaml").write_text("models: ['abcd1234']\nweights: [[1., 1., 1., 0.]]\n")
    with pytest.raises(ModelError, match="has a weight in"):
        load_repository(tmp_path)


class Evil:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/podtool-was-here",)


def test_bad_checkpoints_are_refused_and_run_nothing(tmp_path: Path) -> None:
    from podtool.engines.separation_demucs import load_repository

    with pytest.raises(ModelError, match="no demucs models"):
        load_repository(tmp_path)
    path = save(tmp_path, {"klass": Evil(), "args": [], "kwargs": {}, "state": {}})
    marker = Path("/tmp/podtool-was-here")
    marker.unlink(missing_ok=True)
    with pytest.raises(ModelError, match="not a demucs checkpoint"):
        load_repository(tmp_path)
    assert not marker.exists()
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ModelError, match="checksum"):
        load_repository(tmp_path)
