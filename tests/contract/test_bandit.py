"""Bandit v2 on tiny weights in the forms in which they are published, and its authors' code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.engines.separation_bandit import BINS, Bandit, _network, bands_of, tensors_of
from podtool.engines.worker import Worker
from podtool.errors import ModelError
from podtool.stages.separate import SeparateParams, separate
from podtool.store import ModelStore

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Folder:
    """A store that has one folder for every model."""

    path: Path

    def folder(self, model_id: str) -> Path:
        return self.path


def context(folder: Path) -> EngineContext:
    return EngineContext(Folder(folder), threads=1)


def tiny(kind: str = "GRU") -> dict[str, Any]:
    """Tensors as in a published checkpoint: with those of other stems, and some said twice."""
    import torch

    torch.manual_seed(0)
    state = dict(_network(64, 2, 8, 6, 10, kind, True).state_dict())
    for key in [k for k in state if k.startswith("mask_estim.speech.norm_mlp.")]:
        state[key.replace("speech", "music")] = state[key]
        if ".norm." in key:
            state[key.replace(".norm.", ".combined.0.")] = state[key]
    state["stft.window"] = torch.hann_window(2048)
    state["mask_estim.speech.freq_weights/0"] = torch.ones(3, dtype=torch.float64)
    return state


def save(folder: Path, found: Any) -> Path:
    import torch

    folder.mkdir(exist_ok=True, parents=True)
    torch.save(found, folder / "multi.ckpt")
    return folder


def noise(frames: int, channels: int = 1, rate: int = 48000) -> Audio:
    samples = np.random.default_rng(1).normal(0, 0.1, (channels, frames))
    return Audio(samples.astype(np.float32), rate)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_contract(tmp_path: Path, kind: str) -> None:
    engine = Bandit.load(context(save(tmp_path, tiny(kind))))
    for frames in (1, 480, 2048, 30001):
        audio = noise(frames)
        found = engine.separate(audio)["speech"]
        assert found.samples.shape == audio.samples.shape and found.sample_rate == 48000
        assert found.samples.dtype == np.float32 and np.isfinite(found.samples).all()
        assert np.array_equal(found.samples, engine.separate(audio)["speech"].samples)
    assert found.samples.any()
    silent = engine.separate(Audio(np.zeros((1, 9600), np.float32), 48000))["speech"]
    assert not silent.samples.any()


def test_both_published_forms_are_the_same(tmp_path: Path) -> None:
    plain = save(tmp_path / "a", tiny())
    whole = {f"model.{k}": v for k, v in tiny().items()}
    trained = save(tmp_path / "b", {"epoch": 1, "state_dict": whole, "loops": {}})
    one, two = (Bandit.load(context(f)).separate(noise(5000))["speech"] for f in (plain, trained))
    assert np.array_equal(one.samples, two.samples)
    assert not any("music" in k or "combined.0" in k for k in tensors_of(plain / "multi.ckpt")
                   if k.startswith("mask_estim"))  # fmt: skip


def test_bands_leave_no_gap_and_weigh_one() -> None:
    bands, weights = bands_of(64)
    total = np.zeros(BINS)
    for (a, b), weight in zip(bands, weights, strict=True):
        total[a:b] += weight
    assert bands[0][0] == 0 and bands[-1][1] == BINS and np.allclose(total, 1)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_it_agrees_with_the_authors_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As the package eluate carries it; of the package nothing else is imported."""
    import torch

    from podtool.engines.torchaudio_stub import make_harmless

    spec = importlib.util.find_spec("eluate")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("pip install --no-deps eluate librosa")
    pytest.importorskip("librosa")
    make_harmless()
    bare = ModuleType("eluate")
    bare.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "eluate", bare)
    name = "eluate._vendor.mss_training.models.bandit_v2.bandit"
    theirs = importlib.import_module(name).Bandit(
        in_channels=1, stems=["speech", "music", "sfx"], n_bands=64, n_sqm_modules=2, emb_dim=8,
        rnn_dim=6, rnn_type=kind, mlp_dim=10, pad_mode="reflect", fs=48000,
    ).eval()  # fmt: skip
    ours = Bandit.load(context(save(tmp_path, theirs.state_dict())))
    audio = noise(30000)
    with torch.inference_mode():
        wanted = theirs(torch.from_numpy(audio.samples)[None])[0, 0, 0].numpy()
    assert wanted.any()
    assert np.allclose(ours.separate(audio)["speech"].samples[0], wanted, atol=1e-6)


def test_through_a_worker_and_the_stage(tmp_path: Path) -> None:
    given = context(save(tmp_path, tiny()))
    alone = Bandit.load(given)
    with engines.load("separation", "bandit", given) as apart:
        assert isinstance(apart, Worker)
        found = apart.separate(noise(9000))["speech"].samples
    assert np.abs(found - alone.separate(noise(9000))["speech"].samples).max() <= 1e-6
    samples = (np.rint(noise(20000, 2, 44100).samples * 32768) / 32768).astype(np.float32)
    blocks = list(separate(Audio(samples, 44100), alone, None, SeparateParams()))
    total = np.concatenate([b.speech.samples + b.background.samples for b in blocks], axis=1)
    assert (total == samples).all()


class Evil:
    """A pickle that would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_what_is_no_bandit_is_refused(tmp_path: Path) -> None:
    import torch

    with pytest.raises(ModelError, match="0 checkpoints"):
        Bandit.load(context(tmp_path))
    marker = tmp_path / "was-here"
    with pytest.raises(ModelError, match="not a plain checkpoint"):
        Bandit.load(context(save(tmp_path, {"state_dict": Evil(marker)})))
    assert not marker.exists()
    with pytest.raises(ModelError, match="not a Bandit v2"):
        Bandit.load(context(save(tmp_path, {"weight": torch.zeros(3)})))
    state = tiny()
    del state["tf_model.seqband.0.fc.bias"]
    with pytest.raises(ModelError, match="does not fit"):
        Bandit.load(context(save(tmp_path, state)))
    stereo = tiny()
    key = "band_split.norm_fc_modules.0.combined.0.weight"
    stereo[key] = torch.cat([stereo[key]] * 2)
    with pytest.raises(ModelError, match="does not fit"):
        Bandit.load(context(save(tmp_path, stereo)))


def test_the_weights_are_asked_for(tmp_path: Path) -> None:
    status = engines.availability("separation", "bandit", EngineContext(ModelStore(tmp_path)))
    assert not status.available and status.hint == "podtool models pull bandit-v2"
