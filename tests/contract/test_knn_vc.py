"""kNN-VC on tiny weights: WavLM in transformers' format and a vocoder as its authors publish it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines import availability, hifi_gan, load
from podtool.engines.protocols import EngineContext
from podtool.engines.torchaudio_stub import make_harmless
from podtool.engines.voice_knn import HOP, Knn
from podtool.engines.worker import Worker
from podtool.engines.world_profile import SpeechProfile
from podtool.errors import InputError, ModelError

pytest.importorskip("transformers", minversion="5.0", reason="pip install 'podtool[knn-vc]'")
pytestmark = pytest.mark.engine("knn-vc")

WIDTH, CHANNELS = 24, 16


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def generator() -> Any:
    """A HiFi-GAN as torch modules with weight normalisation: what the weights were made with."""
    import torch
    from torch import nn
    from torch.nn.utils import weight_norm

    def conv(a: int, b: int, size: int, dilation: int = 1) -> nn.Module:
        padding = (size - 1) // 2 * dilation
        return weight_norm(nn.Conv1d(a, b, size, dilation=dilation, padding=padding))

    class Block(nn.Module):
        def __init__(self, width: int, size: int) -> None:
            super().__init__()
            self.convs1 = nn.ModuleList(conv(width, width, size, d) for d in (1, 3, 5))
            self.convs2 = nn.ModuleList(conv(width, width, size) for _ in range(3))

        def forward(self, x: Any) -> Any:
            for first, second in zip(self.convs1, self.convs2, strict=True):
                y = nn.functional.leaky_relu(first(nn.functional.leaky_relu(x, 0.1)), 0.1)
                x = x + second(y)
            return x

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin_pre = nn.Linear(WIDTH, 8)
            self.conv_pre = conv(8, CHANNELS, 7)
            self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
            for i, (rate, size) in enumerate([(10, 20), (8, 16), (2, 4), (2, 4)]):
                a, b = CHANNELS >> i, CHANNELS >> i + 1
                up = nn.ConvTranspose1d(a, b, size, rate, padding=(size - rate) // 2)
                self.ups.append(weight_norm(up))
                self.resblocks.extend(Block(b, k) for k in (3, 7))
            self.conv_post = conv(CHANNELS >> 4, 1, 7)

        def forward(self, x: Any) -> Any:
            x = self.conv_pre(self.lin_pre(x).permute(0, 2, 1))
            for i, up in enumerate(self.ups):
                x = up(nn.functional.leaky_relu(x, 0.1))
                x = sum(b(x) for b in self.resblocks[2 * i : 2 * i + 2]) / 2
            return torch.tanh(self.conv_post(nn.functional.leaky_relu(x)))

    torch.manual_seed(0)
    network = Generator()
    with torch.no_grad():  # louder than untrained networks are
        for name, value in network.named_parameters():
            value.mul_(0.0 if name.endswith("bias") else 3.0 if name.endswith("_g") else 1.0)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    make_harmless()
    from transformers import WavLMConfig, WavLMModel

    path = tmp_path_factory.mktemp("knn")
    torch.save({"generator": generator().state_dict()}, path / "prematch_g.pt")
    config = WavLMConfig(
        hidden_size=WIDTH, num_hidden_layers=7, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8,) * 7, feat_extract_norm="layer", do_stable_layer_norm=True,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, num_buckets=16,
    )  # fmt: skip
    WavLMModel(config).save_pretrained(path / "wavlm")
    return path


def context(folder: Path) -> EngineContext:
    return EngineContext(NoStore(), options={"model": str(folder)})


@pytest.fixture(scope="module")
def engine(folder: Path) -> Knn:
    return Knn.load(context(folder))


def voice(seed: int, seconds: float, rate: int = 16000, channels: int = 1) -> Audio:
    """A buzz of a gliding pitch with pauses: something that WORLD finds a pitch in."""
    rng = np.random.default_rng(seed)
    at = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(110 + 40 * seed + 20 * np.sin(2 * np.pi * at)) / rate
    buzz = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 12))
    sound = 0.1 * buzz * (np.sin(2 * np.pi * 1.3 * at) > -0.6) + rng.normal(0, 1e-4, len(at))
    return Audio(np.repeat(sound.astype(np.float32)[None], channels, axis=0), rate)


@pytest.fixture(scope="module")
def profiles(engine: Knn) -> tuple[SpeechProfile, SpeechProfile]:
    return engine.enrol([voice(1, 1.5)]), engine.enrol([voice(2, 1.2), voice(2, 0.4)])


def test_the_vocoder_is_the_one_that_the_weights_were_made_with() -> None:
    import torch

    network = generator().eval()
    features = torch.randn(9, WIDTH)
    with torch.inference_mode():
        expected = network(features[None])[0, 0]
        found = hifi_gan.generate(hifi_gan.folded(network.state_dict()), features)
    assert found.shape == (9 * HOP,)
    assert torch.allclose(found, expected, atol=1e-4) and float(expected.std()) > 1e-2
    with pytest.raises(ModelError, match="not a HiFi-GAN"):
        hifi_gan.folded({"lin_pre.weight": torch.zeros(2, 2)})


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 1)])
def test_length_and_level_are_those_of_the_source(
    engine: Knn, profiles: tuple[SpeechProfile, SpeechProfile], rate: int, channels: int
) -> None:
    spoken = voice(1, 1.037, rate, channels)
    made = engine.convert(spoken, engine.voice_map(*profiles))
    assert made.sample_rate == rate and made.samples.shape == (1, spoken.frames)
    assert np.isfinite(made.samples).all() and made.samples.dtype == np.float32
    source = spoken.samples.mean(axis=0)
    level = 20 * np.log10(np.std(made.samples) / np.std(source))
    assert abs(level) < (3 if rate >= 16000 else 6)  # a random vocoder sounds above 4 kHz too
    half = np.array_split(np.abs(source), 20), np.array_split(np.abs(made.samples[0]), 20)
    loud, out = (np.array([p.mean() for p in parts]) for parts in half)
    assert np.corrcoef(loud, out)[0, 1] > 0.7
    again = engine.convert(spoken, engine.voice_map(*profiles))
    assert np.array_equal(made.samples, again.samples)


def test_only_sounds_of_the_target_are_said(
    engine: Knn, profiles: tuple[SpeechProfile, SpeechProfile], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    plain = hifi_gan.generate

    def watched(weights: hifi_gan.Weights, features: Any) -> Any:
        said.append(features)
        return plain(weights, features)

    monkeypatch.setattr(hifi_gan, "generate", watched)
    target = profiles[1]
    assert target.sounds is not None
    assert target.sounds.shape == (-(-19200 // HOP) + -(-6400 // HOP), WIDTH)
    engine.convert(voice(1, 0.5), engine.voice_map(*profiles))
    (features,) = said
    heard = engine._hear(voice(1, 0.5).samples[0])
    unit = target.sounds / np.linalg.norm(target.sounds, axis=1, keepdims=True)
    alike = heard / np.linalg.norm(heard, axis=1, keepdims=True) @ unit.T
    nearest = np.argsort(-alike, axis=1)[:, :4]
    assert np.allclose(features.numpy(), target.sounds[nearest].mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("frames", [0, 1, 160, 1600])
def test_silence_stays_silent_and_scraps_keep_their_length(
    engine: Knn, profiles: tuple[SpeechProfile, SpeechProfile], frames: int
) -> None:
    mapped = engine.voice_map(*profiles)
    silent = engine.convert(Audio(np.zeros((1, frames), np.float32), 16000), mapped)
    assert silent.frames == frames and not silent.samples.any()
    noise = np.random.default_rng(0).normal(0, 0.1, (1, frames)).astype(np.float32)
    assert engine.convert(Audio(noise, 16000), mapped).frames == frames


def test_a_voice_outlives_its_file_and_others_are_refused(
    engine: Knn, profiles: tuple[SpeechProfile, SpeechProfile], tmp_path: Path
) -> None:
    source, target = profiles
    target.save(tmp_path / "voice.safetensors")
    loaded = SpeechProfile.load(tmp_path / "voice.safetensors")
    one = engine.convert(voice(1, 0.3), engine.voice_map(source, target))
    two = engine.convert(voice(1, 0.3), engine.voice_map(source, loaded))
    assert np.array_equal(one.samples, two.samples)
    with pytest.raises(InputError, match="other"):
        engine.voice_map(source, dataclasses.replace(target, sounds=None, sounds_by=None))
    with pytest.raises(InputError, match="other"):
        engine.voice_map(source, dataclasses.replace(target, sounds_by="elsewhere"))


def test_what_is_missing_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="wavlm/config.json"):
        Knn.load(context(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("podtool.engines.voice_knn.ENCODER", str(folder / "wavlm"))
    status = availability("conversion", "knn-vc", EngineContext(NoStore()))
    assert not status.available and status.hint.startswith("curl -L")
    assert str(tmp_path / "hub" / "checkpoints") in status.hint


def test_a_worker_gives_the_same(
    engine: Knn, folder: Path, profiles: tuple[SpeechProfile, SpeechProfile]
) -> None:
    with load("conversion", "knn-vc", context(folder)) as worker:
        assert isinstance(worker, Worker)
        heard = worker.enrol([voice(1, 1.5)])
        assert heard.sounds is not None and profiles[0].sounds is not None
        # not to the bit: a process that does more at once adds up in another order
        np.testing.assert_allclose(heard.sounds, profiles[0].sounds, atol=1e-4)
        mapped = worker.voice_map(heard, profiles[1])  # stays in the worker
        made, left = worker.convert_and_tell(voice(1, 0.3), mapped)
    own = engine.convert(voice(1, 0.3), engine.voice_map(*profiles))
    assert left == 0.0 and np.allclose(made.samples, own.samples, atol=1e-5)
