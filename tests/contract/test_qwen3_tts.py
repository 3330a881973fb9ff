"""Qwen3-TTS on a small model in the layout of mlx-audio's: real networks, random weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines import availability, load, voice_qwen3
from podtool.engines.protocols import EngineContext
from podtool.engines.torchaudio_stub import make_harmless
from podtool.engines.voice_qwen3 import DEFAULT_MODEL, Qwen3Tts
from podtool.engines.worker import Worker
from podtool.errors import ConfigError, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.engine("qwen3-tts")]
HERE = importlib.util.find_spec("mlx_audio") is not None
needs_package = pytest.mark.skipif(not HERE, reason="pip install 'podtool[qwen3-tts]'")

SPECIAL = ["<|im_start|>", "<|im_end|>", "assistant", "\n", "<tts_pad>", "<tts_bos>", "<tts_eos>"]
CODES, GROUPS = 64, 2
HOP = 64  # samples of a frame, of which the published models have 1920


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def context(folder: Path, **options: str) -> EngineContext:
    return EngineContext(NoStore(), threads=1, options={"model": str(folder), **options})


def write_tokenizer(folder: Path) -> dict[str, int]:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    letters = sorted(ByteLevel.alphabet())
    raw = Tokenizer(BPE(vocab={c: n for n, c in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=SPECIAL[1])
    made.save_pretrained(folder)
    return {t: made.convert_tokens_to_ids(t) for t in SPECIAL}


def write_model(folder: Path) -> None:
    """The talker, its predictor of codes and the codec, in the layout of the published ones."""
    make_harmless()
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_audio.tts.models.qwen3_tts import Model, ModelConfig
    from mlx_audio.tts.models.qwen3_tts.config import (
        Qwen3TTSTokenizerConfig,
        filter_dict_for_dataclass,
    )
    from mlx_audio.tts.models.qwen3_tts.speech_tokenizer import Qwen3TTSSpeechTokenizer

    ids = write_tokenizer(folder)
    mx.random.seed(0)
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8,
        "num_attention_heads": 2, "num_key_value_heads": 1, "num_code_groups": GROUPS,
    }  # fmt: skip
    first = CODES + 8  # of the talker's special codes; the last 1024 are never said
    config: dict[str, Any] = {
        "model_type": "qwen3_tts", "tts_model_type": "custom_voice", "sample_rate": 24000,
        "im_start_token_id": ids["<|im_start|>"], "im_end_token_id": ids["<|im_end|>"],
        "tts_pad_token_id": ids["<tts_pad>"], "tts_bos_token_id": ids["<tts_bos>"],
        "tts_eos_token_id": ids["<tts_eos>"],
        "talker_config": {
            **small, "vocab_size": CODES + 1024, "text_hidden_size": 16, "text_vocab_size": 300,
            "rope_scaling": {
                "interleaved": True, "mrope_section": [2, 1, 1], "rope_type": "default",
            },
            "codec_eos_token_id": first, "codec_think_id": first + 1, "codec_nothink_id": first + 2,
            "codec_think_bos_id": first + 3, "codec_think_eos_id": first + 4,
            "codec_pad_id": first + 5, "codec_bos_id": first + 6,
            "codec_language_id": {"english": first + 7, "german": first + 8},
            "spk_id": {"vivian": first + 9, "ryan": first + 10},
            "code_predictor_config": {**small, "vocab_size": CODES},
        },
    }  # fmt: skip
    # mlx-audio tells the layout of a convolution by its sizes, and only from 65 channels on.
    codec = {
        "decode_upsample_rate": HOP,
        "decoder_config": {
            "upsample_rates": [2, 2, 2, 2], "upsampling_ratios": [2, 2],
            "latent_dim": 80, "codebook_dim": 160, "codebook_size": CODES, "decoder_dim": 16 * 66,
            "hidden_size": 16, "intermediate_size": 32, "head_dim": 8, "num_attention_heads": 2,
            "num_hidden_layers": 1, "num_key_value_heads": 2, "num_quantizers": GROUPS,
            "semantic_codebook_size": CODES, "vector_quantization_hidden_dimension": 80,
        },
    }  # fmt: skip

    def save(network: Any, path: Path) -> None:
        mx.save_safetensors(str(path), dict(tree_flatten(network.parameters())))

    save(Model(ModelConfig.from_dict(config)), folder / "model.safetensors")
    tokenizer = Qwen3TTSSpeechTokenizer(
        Qwen3TTSTokenizerConfig(**filter_dict_for_dataclass(Qwen3TTSTokenizerConfig, codec))
    )
    (folder / "speech_tokenizer").mkdir()
    save(tokenizer, folder / "speech_tokenizer" / "model.safetensors")
    (folder / "speech_tokenizer" / "config.json").write_text(json.dumps(codec))
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not HERE:
        pytest.skip("mlx-audio is not installed")
    path = tmp_path_factory.mktemp("qwen3") / "model"
    path.mkdir()
    write_model(path)
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Qwen3Tts:
    return Qwen3Tts.load(context(folder))


@pytest.fixture(autouse=True)
def little_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_qwen3, "SPARE_S", 0.5)


def said(engine: Any, text: str, seed: int = 0) -> Audio:
    (block,) = engine.speak(text, 1.0, seed)
    assert isinstance(block, Audio)
    return block


def test_one_seed_is_one_take_and_what_never_ends_is_ended(engine: Qwen3Tts) -> None:
    takes = [said(engine, "Hi.", seed) for seed in (0, 1, 0)]
    for take in takes:
        assert take.sample_rate == 24000 and take.samples.shape[0] == 1
        assert take.samples.dtype == np.float32 and np.isfinite(take.samples).all()
        assert 0 < take.frames <= (3 / 8 + 0.5 + 0.1) * 12.5 * HOP and take.samples.any()
    assert np.array_equal(takes[0].samples, takes[2].samples)
    assert not np.array_equal(takes[0].samples, takes[1].samples)
    assert list(engine.speak(" \n", 1.0, 0)) == []


def test_lines_are_one_text(engine: Qwen3Tts) -> None:
    assert np.array_equal(said(engine, "A\nb.").samples, said(engine, "A b.").samples)


def test_it_says_what_the_package_says(engine: Qwen3Tts) -> None:
    import mlx.core as mx

    mx.random.seed(3)
    frames = round((3 / 8 + 0.5) * 12.5)
    (theirs,) = engine._model.generate_custom_voice(
        "Hi.", speaker="Ryan", language="English", max_tokens=frames
    )
    assert np.array_equal(said(engine, "Hi.", 3).samples[0], np.array(theirs.audio))


def test_voices_and_languages_are_told_apart(engine: Qwen3Tts, folder: Path) -> None:
    assert engine._voice == "ryan" and engine.language == "en"
    others = [context(folder, voice="Vivian"), context(folder, language="de")]
    for other in others:
        take = said(Qwen3Tts.load(other), "Hi.")
        assert not np.array_equal(take.samples, said(engine, "Hi.").samples)
    with pytest.raises(ConfigError, match="no voice 'somebody.wav'") as raised:
        Qwen3Tts.load(context(folder, voice="somebody.wav"))
    assert "ryan" in (raised.value.hint or "") and "consent" in (raised.value.hint or "")
    with pytest.raises(ConfigError, match="does not speak 'la'"):
        Qwen3Tts.load(context(folder, language="la"))


def test_a_worker_says_the_same(
    engine: Qwen3Tts, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Qwen3Tts(engine._model, "ryan")
    with load("speaking", "qwen3-tts", context(folder)) as worker:
        assert isinstance(worker, Worker)  # whatever is asked
        text = "Hi there."
        found = said(worker, text, 4)
    monkeypatch.undo()  # the worker allows for more
    assert np.array_equal(found.samples, said(plain, text, 4).samples)


@needs_package
def test_what_is_no_model_with_voices_is_refused(folder: Path, tmp_path: Path) -> None:
    def changed(name: str, **settings: Any) -> Path:
        place = tmp_path / name
        place.mkdir()
        for path in folder.iterdir():
            (place / path.name).symlink_to(path)
        (place / "config.json").unlink()
        config = json.loads((folder / "config.json").read_text()) | settings
        (place / "config.json").write_text(json.dumps(config))
        return place

    cases: list[tuple[str, dict[str, Any], str]] = [
        ("base", {"tts_model_type": "base"}, "kind base"),
        ("other", {"model_type": "bark"}, "but a bark"),
        ("mute", {"talker_config": {}}, "names no voices"),
    ]
    for name, settings, reason in cases:
        with pytest.raises(ModelError, match=reason):
            Qwen3Tts.load(context(changed(name, **settings)))
    broken = changed("broken")
    (broken / "speech_tokenizer").unlink()
    (broken / "speech_tokenizer").mkdir()
    (broken / "speech_tokenizer" / "config.json").write_text("{")
    (broken / "speech_tokenizer" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is not a Qwen3-TTS: .*speech tokenizer"):
        Qwen3Tts.load(context(broken))


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="holds no config.json"):
        Qwen3Tts.locate(context(tmp_path))
    status = availability("speaking", "qwen3-tts", EngineContext(NoStore()))
    if not HERE:
        assert not status.available and status.hint == "pip install 'podtool[qwen3-tts]'"
        return
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    status = availability("speaking", "qwen3-tts", EngineContext(NoStore()))
    assert status.hint == f"hf download {DEFAULT_MODEL}"
