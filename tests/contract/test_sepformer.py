"""SepFormer through podtool: the real loading code on tiny checkpoints of the real architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.engines.talkers_levels import at_their_levels
from podtool.engines.talkers_sepformer import Sepformer, SepformerWhamr, read
from podtool.engines.torchaudio_stub import import_speechbrain
from podtool.errors import ModelError

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.engine("sepformer")]

HYPERPARAMS = """
sample_rate: {rate}
num_spks: {talkers}
heads: 2
Encoder: !new:speechbrain.lobes.models.dual_path.Encoder
  kernel_size: 16
  out_channels: 16
SBtfintra: !new:speechbrain.lobes.models.dual_path.SBTransformerBlock
  num_layers: 1
  d_model: 16
  nhead: !ref <heads>
  d_ffn: 32
  dropout: 0
  use_positional_encoding: True
  norm_before: True
SBtfinter: !new:speechbrain.lobes.models.dual_path.SBTransformerBlock
  num_layers: 2
  d_model: 16
  nhead: 4
  d_ffn: 32
  dropout: 0
  use_positional_encoding: True
  norm_before: True
MaskNet: !new:speechbrain.lobes.models.dual_path.Dual_Path_Model
  num_spks: !ref <num_spks>
  in_channels: 16
  out_channels: 16
  num_layers: 2
  K: 50
  intra_model: !ref <SBtfintra>
  inter_model: !ref <SBtfinter>
  norm: ln
  linear_layer_after_inter_intra: False
  skip_around_intra: True
Decoder: !new:speechbrain.lobes.models.dual_path.Decoder
  in_channels: 16
  out_channels: 1
  kernel_size: 16
  stride: 8
  bias: False
modules:
  encoder: !ref <Encoder>
  decoder: !ref <Decoder>
  masknet: !ref <MaskNet>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    encoder: !ref <Encoder>
    masknet: !ref <MaskNet>
    decoder: !ref <Decoder>
"""


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def write_model(folder: Path, talkers: int, rate: int = 8000) -> Path:
    """A SepFormer of 20 thousand parameters in the form in which speechbrain publishes its own."""
    import torch
    from hyperpyyaml import load_hyperpyyaml  # type: ignore[import-untyped]

    import_speechbrain("lobes.models.dual_path")
    folder.mkdir(parents=True, exist_ok=True)
    text = HYPERPARAMS.format(rate=rate, talkers=talkers)
    (folder / "hyperparams.yaml").write_text(text)
    torch.manual_seed(talkers)
    modules = load_hyperpyyaml(text)["modules"]
    for name, module in modules.items():
        torch.save(module.state_dict(), folder / f"{name}.ckpt")
    return folder


def in_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


def cached(cache: Path, name: str, talkers: int, rate: int = 8000) -> None:
    """A model as the hub's cache keeps it."""
    place = cache / f"models--{name.replace('/', '--')}"
    write_model(place / "snapshots" / "0", talkers, rate)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0")


def noise(frames: int, rate: int = 8000, seed: int = 1) -> Audio:
    samples = np.random.default_rng(seed).normal(0, 0.1, (1, frames))
    return Audio(samples.astype(np.float32), rate)


@pytest.mark.parametrize("talkers", [2, 3])
def test_it_agrees_with_speechbrain(tmp_path: Path, talkers: int) -> None:
    import torch

    write_model(tmp_path / "model", talkers)
    (separation,) = import_speechbrain("inference.separation")
    theirs = separation.SepformerSeparation.from_hparams(
        source=str(tmp_path / "model"), savedir=str(tmp_path / "saved")
    )
    network = read(tmp_path / "model")
    assert (network.talkers, network.sample_rate) == (talkers, 8000)
    mixture = torch.from_numpy(noise(2400).samples)
    with torch.inference_mode():
        expected = theirs.separate_batch(mixture)[0].T
        found = network.separate(mixture)[0]
    assert found.abs().max() > 0
    assert torch.allclose(found, expected, atol=1e-6)


def test_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_cache(monkeypatch, tmp_path)
    cached(tmp_path, Sepformer.two, 2)
    context = EngineContext(NoStore(), threads=1)
    assert Sepformer.load(context).max_talkers == 2
    cached(tmp_path, Sepformer.three, 3)
    engine = Sepformer.load(context)
    assert engine.max_talkers == 3
    for frames in (1, 80, 4001):
        for count in (1, 2, 3):
            found = engine.talkers(noise(frames), count)
            assert found.shape == (count, frames) and found.dtype == np.float32
            assert np.isfinite(found).all()
            assert np.array_equal(found, engine.talkers(noise(frames), count))
    silent = engine.talkers(Audio(np.zeros((1, 800), np.float32), 8000), 2)
    assert silent.shape == (2, 800) and not silent.any()
    with pytest.raises(ValueError, match="4 talkers"):
        engine.talkers(noise(800), 4)


def test_through_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_cache(monkeypatch, tmp_path)
    context = EngineContext(NoStore(), threads=1)
    status = engines.availability("talkers", "sepformer", context)
    assert not status.available and status.hint == f"hf download {Sepformer.two}"
    cached(tmp_path, Sepformer.two, 2)
    cached(tmp_path, SepformerWhamr.two, 2, 8000)
    inside = Sepformer.load(context).talkers(noise(1600), 2)
    with engines.load("talkers", "sepformer", context) as apart:
        assert apart.max_talkers == 2
        assert np.allclose(apart.talkers(noise(1600), 2), inside, atol=1e-6)
    with pytest.raises(ModelError, match="is for 8000 Hz"):
        SepformerWhamr.load(context)


def test_what_is_no_sepformer_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    import torch

    folder = write_model(tmp_path / "model", 2)
    text = (folder / "hyperparams.yaml").read_text()
    marker = tmp_path / "ran"
    evil = f"x: !apply:os.system ['touch {marker}']\n"
    (folder / "hyperparams.yaml").write_text(evil + text)
    assert read(folder).talkers == 2 and not marker.exists()
    for wrong, told in [
        (text.replace("norm: ln", "norm: gln"), "norm is 'gln'"),
        (text.replace("K: 50", ""), "'K'"),
        ("- 1", "not that of"),
        ("a: [", "cannot be read"),
    ]:
        (folder / "hyperparams.yaml").write_text(wrong)
        with pytest.raises(ModelError, match=told):
            read(folder)
    (folder / "hyperparams.yaml").write_text(text)
    torch.save({"weight": torch.zeros(3)}, folder / "masknet.ckpt")
    with pytest.raises(ModelError, match="is not a SepFormer"):
        read(folder)


def test_levels_are_those_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    voices: Any = rng.normal(0, [[0.1], [0.02], [0.05]], (3, 4000)).astype(np.float32)
    rest = rng.normal(0, 0.01, 4000).astype(np.float32)
    mixture = voices.sum(axis=0) + rest
    found = at_their_levels(voices * np.array([[40.0], [0.1], [3.0]], np.float32), mixture, 3)
    assert np.abs(found - voices).max() < 0.01
    two = at_their_levels(voices, mixture, 2)
    assert np.abs(two - voices[[0, 2]]).max() < 0.01  # in their order, without the quietest
    assert (at_their_levels(-voices, mixture, 3) == 0).all()  # no voice is its own negative
