"""VoxCPM2 on a tiny model in the form of the published one: real networks, random weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio, write_audio
from podtool.engines import availability, load, voice_voxcpm
from podtool.engines.protocols import EngineContext
from podtool.engines.torchaudio_stub import make_harmless
from podtool.engines.voice_voxcpm import DEFAULT_MODEL, VoxCpm2
from podtool.engines.worker import Worker
from podtool.errors import ConfigError, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.engine("voxcpm2")]
HERE = importlib.util.find_spec("voxcpm") is not None


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def context(folder: Path, **options: str) -> EngineContext:
    return EngineContext(NoStore(), threads=1, options={"model": str(folder), **options})


def write_tokenizer(folder: Path) -> int:
    """As many tokens as the model needs for its own, which stand at 101 to 104."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import LlamaTokenizerFast

    letters = ["<s>", "</s>", "<unk>", *sorted(ByteLevel.alphabet())]
    raw = Tokenizer(BPE(vocab={c: n for n, c in enumerate(letters)}, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.save(str(folder / "tokenizer.json"))
    LlamaTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).save_pretrained(folder)
    return len(letters)


def write_model(folder: Path) -> None:
    make_harmless()
    import torch
    from safetensors.torch import save_file
    from voxcpm.model.voxcpm2 import AudioVAEConfigV2, AudioVAEV2, VoxCPM2Model, VoxCPMConfig

    torch.manual_seed(0)
    words = write_tokenizer(folder)
    part = {"hidden_dim": 16, "ffn_dim": 32, "num_heads": 2, "num_layers": 1, "kv_channels": 8}
    config: dict[str, Any] = {
        "architecture": "voxcpm2", "patch_size": 2, "feat_dim": 8, "residual_lm_num_layers": 1,
        "scalar_quantization_latent_dim": 8, "max_length": 512, "device": "cpu", "dtype": "float32",
        "lm_config": {
            "bos_token_id": 0, "eos_token_id": 1, "hidden_size": 16, "intermediate_size": 32,
            "max_position_embeddings": 512, "num_attention_heads": 2, "num_hidden_layers": 1,
            "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "vocab_size": words, "scale_emb": 12,
            "dim_model_base": 8, "scale_depth": 1.4, "rope_theta": 10000.0, "kv_channels": 8,
            "rope_scaling": {
                "type": "longrope", "long_factor": [1.0] * 4, "short_factor": [1.0] * 4,
                "original_max_position_embeddings": 512,
            },
        },
        "encoder_config": part,
        "dit_config": {**part, "cfm_config": {}},
        "audio_vae_config": {
            "encoder_dim": 8, "encoder_rates": [2, 5, 8, 8], "latent_dim": 8, "decoder_dim": 64,
            "decoder_rates": [8, 6, 5, 2, 2, 2], "cond_dim": 8,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    from transformers import LlamaTokenizerFast

    codec = AudioVAEV2(AudioVAEConfigV2(**config["audio_vae_config"]))
    torch.save({"state_dict": codec.state_dict()}, folder / "audiovae.pth")
    network = VoxCPM2Model(
        VoxCPMConfig.model_validate(config), LlamaTokenizerFast.from_pretrained(folder), codec
    )
    with torch.no_grad():
        network.stop_head.weight.zero_()  # it ends where it is made to
    state = {k: v.clone() for k, v in network.state_dict().items() if "audio_vae" not in k}
    save_file(state, folder / "model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not HERE:
        pytest.skip("voxcpm is not installed")
    path = tmp_path_factory.mktemp("voxcpm2") / "model"
    path.mkdir()
    write_model(path)
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> VoxCpm2:
    return VoxCpm2.load(context(folder))


@pytest.fixture(autouse=True)
def little_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_voxcpm, "OPENING", "I read.")
    monkeypatch.setattr(voice_voxcpm, "SPARE_S", 0.5)


def said(engine: Any, text: str, seed: int = 0) -> Audio:
    (block,) = engine.speak(text, 1.0, seed)
    assert isinstance(block, Audio)
    return block


def test_one_seed_is_one_take_and_what_never_ends_is_ended(engine: VoxCpm2) -> None:
    takes = [said(engine, "Hi.", seed) for seed in (0, 1, 0)]
    for take in takes:
        assert take.sample_rate == 48000 and take.samples.shape[0] == 1
        assert take.samples.dtype == np.float32 and np.isfinite(take.samples).all()
        assert 0 < take.duration <= 3 / 8 + 0.5 + 0.1 and take.samples.any()
    assert np.array_equal(takes[0].samples, takes[2].samples)
    assert not np.array_equal(takes[0].samples, takes[1].samples)
    assert list(engine.speak(" \n", 1.0, 0)) == []


def test_the_own_voice_stays_and_another_number_is_another(engine: VoxCpm2, folder: Path) -> None:
    said(engine, "Hi.")
    first = engine._own
    said(engine, "Ho.", 3)
    assert first is not None and engine._own is first
    other = VoxCpm2.load(context(folder, voice="7"))
    said(other, "Hi.")
    assert other._own is not None
    assert not np.array_equal(other._own.patches, first.patches)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2)])
def test_a_voice_is_heard_as_the_package_hears_it(
    engine: VoxCpm2, tmp_path: Path, rate: int, channels: int
) -> None:
    import torch

    noise = np.random.default_rng(1).normal(0, 0.1, (channels, rate)).astype(np.float32)
    voice = engine.voice_of(Audio(noise, rate))
    assert voice.patches.shape[1:] == (2, 8)
    if rate == 16000:
        write_audio(tmp_path / "a.wav", Audio(noise, rate), "float")
        with torch.inference_mode():
            theirs = engine._model.build_prompt_cache(reference_wav_path=str(tmp_path / "a.wav"))
        assert np.array_equal(voice.patches, theirs["ref_audio_feat"])
        torch.manual_seed(5)
        found, _, _ = engine._model.generate_with_prompt_cache(
            "Hi.", theirs, max_len=round((3 / 8 + 0.5) * 48000 / (2 * 1920))
        )
        [own] = engine.speak_as("Hi.", voice, 5)
        assert np.array_equal(own.samples[0], found.numpy().reshape(-1))


def test_a_worker_says_the_same_and_a_voice_stays_there(engine: VoxCpm2, folder: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (1, 16000)).astype(np.float32)
    with load("speaking", "voxcpm2", context(folder)) as worker:
        assert isinstance(worker, Worker)
        kept = worker.voice_of(Audio(noise, 16000))
        [found] = worker.speak_as("A", kept, 2)
    [own] = engine.speak_as("A", engine.voice_of(Audio(noise, 16000)), 2)
    both = min(found.frames, own.frames)  # the worker allows for more
    assert both and np.allclose(
        found.samples[:, : both // 2], own.samples[:, : both // 2], atol=1e-4
    )


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    tensors = load_file(folder / "model.safetensors")
    gone = "stop_head.weight"
    (tmp_path / "model.safetensors").unlink()
    save_file({k: v for k, v in tensors.items() if k != gone}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="lacks 1 tensors, stop_head"):
        VoxCpm2.load(context(tmp_path))
    save_file(tensors, tmp_path / "model.safetensors")
    VoxCpm2.load(context(tmp_path))
    codec = torch.load(folder / "audiovae.pth")["state_dict"]
    (tmp_path / "audiovae.pth").unlink()
    torch.save(dict(list(codec.items())[:-1]), tmp_path / "audiovae.pth")
    with pytest.raises(ModelError, match="lacks 1 tensors, audio_vae"):
        VoxCpm2.load(context(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not a VoxCPM2"):
        VoxCpm2.load(context(tmp_path))


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="holds no config.json"):
        VoxCpm2.load(context(tmp_path))
    with pytest.raises(ConfigError) as raised:
        VoxCpm2.load(context(tmp_path, voice="somebody.wav"))
    assert "consent" in (raised.value.hint or "")
    with pytest.raises(ConfigError, match="does not speak 'la'"):
        VoxCpm2.load(context(tmp_path, language="la"))
    status = availability("speaking", "voxcpm2", EngineContext(NoStore()))
    if not HERE:
        assert status.hint == "podtool engines install voxcpm2"
        return
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    status = availability("speaking", "voxcpm2", EngineContext(NoStore()))
    assert status.hint == f"hf download {DEFAULT_MODEL}"
