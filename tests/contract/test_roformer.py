"""Roformers through podtool: audio-separator's networks with tiny weights, where it lies."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.artifacts import Recording
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.engines.separation_roformer import (
    Roformer,
    Roles,
    chunk_of,
    network_of,
    read_config,
    roles_of,
)
from podtool.engines.worker import Worker
from podtool.errors import ConfigError, ModelError
from podtool.pipeline import separate_file, separate_key
from podtool.stages.separate import SeparateParams
from podtool.store import ModelStore

pytestmark = pytest.mark.slow
HERE = importlib.util.find_spec("audio_separator") is not None
needs_package = pytest.mark.skipif(not HERE, reason="audio-separator is not installed")

# The form in which audio-separator's collection has them; of the default model these are its sizes
# but for dim, depth and heads.
MEL = """\
audio:
  chunk_size: 44100
  dim_t: 256
  hop_length: 441
  n_fft: 2048
  sample_rate: 44100
model:
  dim: 8
  depth: 1
  stereo: true
  num_stems: 1
  time_transformer_depth: 1
  freq_transformer_depth: 1
  num_bands: 60
  dim_head: 8
  heads: 2
  attn_dropout: 0
  flash_attn: True
  dim_freqs_in: 1025
  sample_rate: 44100
  stft_n_fft: 2048
  stft_hop_length: 441
  stft_win_length: 2048
  stft_normalized: False
  mask_estimator_depth: 2
  multi_stft_resolutions_window_sizes: !!python/tuple
  - 4096
  - 2048
  multi_stft_normalized: False
training:
  instruments:
  - vocals
  - other
  target_instrument: vocals
inference:
  dim_t: 1101
"""
BANDS = "\n".join(f"  - {n}" for n in [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8)
BS = f"""\
audio:
  hop_length: 512
  sample_rate: 44100
model:
  dim: 8
  depth: 1
  stereo: true
  num_stems: 2
  linear_transformer_depth: 0
  time_transformer_depth: 1
  freq_transformer_depth: 1
  freqs_per_bands: !!python/tuple
{BANDS}
  - 128
  - 129
  dim_head: 8
  heads: 2
  stft_n_fft: 2048
  stft_hop_length: 512
  stft_win_length: 2048
  mask_estimator_depth: 2
training:
  instruments: [Instrumental, Vocals]
  target_instrument:
inference:
  dim_t: 41
"""


def noise(frames: int) -> Audio:
    samples = np.random.default_rng(1).normal(0, 0.1, (2, frames))
    return Audio(samples.astype(np.float32), 44100)


def write_model(folder: Path, text: str, wrap: str = "") -> Path:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "model.yaml"
    config.write_text(text)
    torch.manual_seed(0)
    settings = read_config(config)
    state = network_of(settings, roles_of(settings, config).stems, config).state_dict()
    tensors: Any = {k: v for k, v in state.items() if not k.endswith("rotary_embed.freqs")}
    torch.save({wrap: tensors} if wrap else tensors, folder / "model.ckpt")
    return folder


def context(folder: Path) -> EngineContext:
    return EngineContext(ModelStore(folder), threads=1, options={"model": f"{folder}/"})


@needs_package
@pytest.mark.parametrize(("text", "wrap"), [(MEL, ""), (BS, "state_dict")])
def test_contract(tmp_path: Path, text: str, wrap: str) -> None:
    engine = Roformer.load(context(write_model(tmp_path, text, wrap)))
    for frames in (0, 1, 441, 4410, 20480, 60000):
        audio = noise(frames)
        found = engine.separate(audio)["speech"]
        assert found.samples.shape == audio.samples.shape and found.sample_rate == 44100
        assert found.samples.dtype == np.float32 and np.isfinite(found.samples).all()
        assert np.array_equal(found.samples, engine.separate(audio)["speech"].samples)
    assert found.samples.any()
    silent = engine.separate(Audio(np.zeros((2, 50000), np.float32), 44100))["speech"]
    assert not silent.samples.any()


@needs_package
def test_one_chunk_is_what_the_package_makes_of_it(tmp_path: Path) -> None:
    import torch
    from torch import nn

    folder = write_model(tmp_path, BS)
    engine = Roformer.load(context(folder))
    assert isinstance(engine._network, nn.Module) and engine._chunk == 512 * 40
    audio = noise(512 * 40)
    with torch.inference_mode():
        theirs = engine._network(torch.from_numpy(audio.samples)[None])
    assert theirs.shape == (1, 2, 2, 512 * 40)
    ours = engine.separate(audio)["speech"].samples
    assert np.allclose(ours, theirs[0, 1].numpy(), atol=1e-6)


@needs_package
def test_it_agrees_with_the_packages_own_loader(tmp_path: Path) -> None:
    import torch

    loader = pytest.importorskip("audio_separator.separator.roformer.roformer_loader")
    folder = write_model(tmp_path, MEL)
    engine = Roformer.load(context(folder))
    state = engine._network.state_dict()
    torch.save(state, folder / "whole.pt")
    theirs = loader.RoformerLoader().load_model(
        str(folder / "whole.pt"), dict(read_config(folder / "model.yaml")), "cpu"
    )
    assert theirs.success, theirs.error_message
    audio = noise(44100)
    with torch.inference_mode():
        wanted = theirs.model(torch.from_numpy(audio.samples)[None])[0].numpy()
    assert np.allclose(engine.separate(audio)["speech"].samples, wanted, atol=1e-6)


@needs_package
def test_what_a_target_leaves_is_the_speech(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a", MEL)
    voices = Roformer.load(context(folder)).separate(noise(30000))["speech"].samples
    other = MEL.replace("target_instrument: vocals", "target_instrument: other")
    rest = Roformer.load(context(write_model(tmp_path / "b", other)))
    assert np.allclose(
        rest.separate(noise(30000))["speech"].samples, noise(30000).samples - voices, atol=1e-6
    )


@needs_package
def test_through_a_worker_and_the_stage(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", MEL)
    alone = Roformer.load(context(folder)).separate(noise(9000))["speech"].samples
    with engines.load("separation", "roformer", context(folder)) as apart:
        assert isinstance(apart, Worker)
        found = apart.separate(noise(9000))["speech"].samples
        assert np.abs(found - alone).max() <= 1e-6 and found.any()
    params = SeparateParams(engine="roformer", model=str(folder), overlap_s=0.2)
    given = EngineContext(ModelStore(tmp_path), threads=1)
    recording = Recording("r", "r.wav", "0" * 64, 16000, 1, 16000)
    audio = Audio(noise(16000).samples[:1], 16000)
    rows = separate_file(audio, recording, given, params, tmp_path)
    assert len(rows) == 5
    key = separate_key(recording, given, params)
    (folder / "model.ckpt").write_bytes((folder / "model.ckpt").read_bytes() + b"0")
    assert separate_key(recording, given, params) != key


@needs_package
def test_a_config_that_the_network_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path, MEL)
    config = folder / "model.yaml"
    for text, reason in [
        (MEL.replace("heads: 2", "heads: 2\n  skip_connection: true"), "has no skip_connection"),
        (MEL.replace("heads: 2", "heads: 2\n  hyper: 3"), "has no hyper"),
        (MEL.replace("dim: 8", "dim: wide"), "makes no roformer"),
        (MEL.replace("dim: 8", "dim: 16"), "does not fit"),
        (MEL.replace("num_bands: 60", "bands: 60"), "neither"),
        (MEL.replace("num_stems: 1", "num_stems: 2"), "2 outputs"),
    ]:
        config.write_text(text)
        with pytest.raises(ModelError, match=reason):
            Roformer.load(context(folder))


def config_at(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_whose_voices_the_config_names(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"

    def roles(instruments: str, target: str) -> Roles:
        text = (
            f"model: {{}}\ntraining:\n  instruments: {instruments}\n  target_instrument: {target}"
        )
        return roles_of(read_config(config_at(path, text)), path)

    assert roles("[vocals, other]", "Vocals") == Roles(1, 0)
    assert roles("[Vocals, Instrumental]", "Instrumental") == Roles(1, 0, is_rest=True)
    assert roles("[music, sfx, speech]", "") == Roles(3, 2)
    for instruments, target in (("[drums, bass]", ""), ("[drums, other]", "drums"), ("[]", "x")):
        with pytest.raises(ModelError, match="no voices"):
            roles(instruments, target)


def test_a_config_is_data(tmp_path: Path) -> None:
    path, marker = tmp_path / "c.yaml", tmp_path / "was-here"
    path.write_text(f"model: !!python/object/apply:os.system ['touch {marker}']")
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(path)
    assert not marker.exists()
    with pytest.raises(ModelError, match="no table"):
        read_config(config_at(path, "- 1"))
    with pytest.raises(ModelError, match="not for stereo"):
        chunk_of(read_config(config_at(path, "model: {stereo: false}")), path)
    with pytest.raises(ModelError, match="does not say"):
        chunk_of(read_config(config_at(path, "model: {stereo: true}")), path)


class Evil:
    """A pickle that would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@needs_package
def test_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    import torch

    folder, marker = write_model(tmp_path, MEL), tmp_path / "was-here"
    torch.save({"state_dict": Evil(marker)}, folder / "model.ckpt")
    with pytest.raises(ModelError, match="not a plain checkpoint"):
        Roformer.load(context(folder))
    assert not marker.exists()


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    given = EngineContext(ModelStore(tmp_path))
    status = engines.availability("separation", "roformer", given)
    if HERE:
        assert status.hint == "podtool models pull melband-roformer-kim"
    else:
        assert status.hint == "podtool engines install roformer"
    (tmp_path / "model.yaml").write_text(MEL)
    with pytest.raises(ModelError, match="0 checkpoints"):
        Roformer.locate(context(tmp_path))
    recording = Recording("r", "r.wav", "0" * 64, 16000, 1, 16000)
    for engine, reason in (("auto", "of one engine"), ("spectral", "takes no model")):
        with pytest.raises(ConfigError, match=reason):
            separate_key(recording, given, SeparateParams(engine=engine, model="x"))
