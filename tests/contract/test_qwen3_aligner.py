"""Qwen3-ForcedAligner on a tiny model in transformers' format: real files, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines import availability
from podtool.engines.alignment_qwen3 import Qwen3Aligner
from podtool.engines.protocols import EngineContext
from podtool.engines.torchaudio_stub import make_harmless
from podtool.errors import ModelError

pytest.importorskip("transformers", minversion="5.13")
pytestmark = pytest.mark.engine("qwen3-aligner")

SPECIAL = {
    "audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}<timestamp><timestamp>"
    "{% else %}<|audio_start|><|audio_pad|><|audio_end|>{% endif %}{% endfor %}{% endfor %}"
)
LABELS = 60  # steps of 80 ms


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def write_model(folder: Path) -> None:
    import torch

    make_harmless()
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen3ASRConfig,
        Qwen3ASRFeatureExtractor,
        Qwen3ASRForTokenClassification,
        Qwen3ASRProcessor,
    )

    letters = sorted(ByteLevel.alphabet())
    raw = Tokenizer(BPE(vocab={c: n for n, c in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.decoder = Decoder()
    special = [*SPECIAL.values(), "<timestamp>", "<|endoftext|>"]
    raw.add_special_tokens([AddedToken(t, special=True) for t in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|endoftext|>", eos_token="<|endoftext|>",
        extra_special_tokens=SPECIAL,
    )  # fmt: skip
    ids: dict[str, Any] = {t: tokenizer.convert_tokens_to_ids(t) for t in special}
    torch.manual_seed(0)
    config = Qwen3ASRConfig(
        audio_config={
            "model_type": "qwen3_asr_encoder", "num_mel_bins": 128, "encoder_layers": 1,
            "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 16, "output_dim": 32,
            "downsample_hidden_size": 8,
        },
        text_config={
            "model_type": "qwen3", "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 16, "vocab_size": len(tokenizer), "max_position_embeddings": 2048,
        },
        audio_token_id=ids["<|audio_pad|>"], timestamp_token_id=ids["<timestamp>"],
        pad_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|endoftext|>"], num_labels=LABELS,
    )  # fmt: skip
    Qwen3ASRForTokenClassification(config).save_pretrained(folder, safe_serialization=True)
    extractor = Qwen3ASRFeatureExtractor(feature_size=128)
    Qwen3ASRProcessor(extractor, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3") / "aligner"
    write_model(path)
    return path


def context(folder: Path) -> EngineContext:
    return EngineContext(NoStore(), options={"model": str(folder)})


@pytest.fixture(scope="module")
def engine(folder: Path) -> Qwen3Aligner:
    return Qwen3Aligner.load(context(folder))


def noise(seconds: float, channels: int = 1) -> Audio:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.05, (channels, int(seconds * 16000)))
    return Audio(samples.astype(np.float32), 16000)


@pytest.mark.parametrize("channels", [1, 2])
def test_every_word_has_times_in_order(engine: Qwen3Aligner, channels: int) -> None:
    words = "Well, it's $5 \u2014 or 4.50 \u5417\u5462?".split()
    audio = noise(3.0, channels)
    found = engine.align(audio, words)
    assert [w.text for w in found] == words
    assert all(0 <= w.start <= w.end <= audio.duration for w in found)
    assert all(a.end <= b.start + 1e-9 for a, b in zip(found, found[1:], strict=False))
    dash = words.index("\u2014")
    assert [i for i, w in enumerate(found) if w.interpolated] == [dash]
    assert engine.align(audio, words) == found


def test_times_are_those_that_the_model_gives(
    engine: Qwen3Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [(0.08, 0.4), (0.4, 0.8), (0.72, 1.2), (1.2, 1.28), (1.28, 9.9)]
    monkeypatch.setattr(engine, "_times", lambda *_: given)
    found = engine.align(noise(2.0), ["so", "\u4f60\u597d", "it", "is"])
    assert [(w.start, w.end) for w in found] == [(0.08, 0.4), (0.4, 1.2), (1.2, 1.28), (1.28, 2.0)]
    short = engine.align(noise(2.0), ["a", "word", "too", "few"])
    assert all(w.interpolated for w in short)


@pytest.mark.parametrize("frames", [0, 1, 160, 1600, 16000])
def test_silence_and_scraps_give_interpolated_times(engine: Qwen3Aligner, frames: int) -> None:
    silence = Audio(np.zeros((1, frames), np.float32), 16000)
    found = engine.align(silence, ["one", "two"])
    assert all(w.interpolated for w in found) and found[-1].end == pytest.approx(frames / 16000)
    assert len(engine.align(noise(frames / 16000), ["one", "two"])) == 2
    assert engine.align(noise(1.0), []) == []


def test_what_is_no_aligner_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="config.json"):
        Qwen3Aligner.load(context(tmp_path))
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not a Qwen3-ForcedAligner"):
        Qwen3Aligner.load(context(tmp_path))
    status = availability("alignment", "qwen3", EngineContext(NoStore()))
    assert status.hint == "hf download Qwen/Qwen3-ForcedAligner-0.6B-hf"
