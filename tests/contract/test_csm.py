"""CSM on a tiny model in transformers' format: real files, random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines import availability, voice_csm
from podtool.engines.protocols import EngineContext
from podtool.engines.torchaudio_stub import make_harmless
from podtool.engines.voice_csm import Csm
from podtool.errors import ConfigError, ModelError

pytest.importorskip("transformers", minversion="5.0", reason="pip install 'podtool[csm]'")
pytestmark = pytest.mark.engine("csm")

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|AUDIO|>", "<|audio_eos|>"]
TEMPLATE = (
    "{% for message in messages %}<|begin_of_text|>[{{ message.role }}]"
    "{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}<|end_of_text|>"
    "{% else %}<|AUDIO|><|audio_eos|>{% endif %}{% endfor %}{% endfor %}"
)
CODES = 32  # of the codec and of the model alike, so that any that is drawn can be sounded


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def write_model(folder: Path) -> None:
    make_harmless()
    import torch
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        CsmConfig,
        CsmForConditionalGeneration,
        CsmProcessor,
        EncodecFeatureExtractor,
        PreTrainedTokenizerFast,
    )

    letters = sorted(ByteLevel.alphabet())
    raw = Tokenizer(BPE(vocab={c: n for n, c in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.decoder = Decoder()
    raw.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=SPECIAL[0], eos_token=SPECIAL[1], pad_token=SPECIAL[1]
    )
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    torch.manual_seed(0)
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
    }  # fmt: skip
    config = CsmConfig(
        **small, num_codebooks=2, vocab_size=CODES, text_vocab_size=len(tokenizer),
        bos_token_id=ids[SPECIAL[0]], pad_token_id=ids[SPECIAL[1]], eos_token_id=None,
        audio_token_id=ids["<|AUDIO|>"], audio_eos_token_id=ids["<|audio_eos|>"],
        codebook_pad_token_id=CODES - 1, codebook_eos_token_id=0,
        depth_decoder_config={
            **small, "num_codebooks": 2, "backbone_hidden_size": 16, "vocab_size": CODES,
        },
        codec_config={
            "model_type": "mimi", "hidden_size": 16, "num_filters": 2, "codebook_size": CODES,
            "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_quantizers": 2,
            "num_semantic_quantizers": 1, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 16,
            "upsample_groups": 16, "upsampling_ratios": [8, 6, 5, 4],
        },
    )  # fmt: skip
    network = CsmForConditionalGeneration(config)
    for name, codebook in network.codec_model.named_buffers():
        if name.endswith("embed_sum"):  # untrained ones are empty
            codebook.normal_()
    network.generation_config.do_sample = True
    network.generation_config.depth_decoder_do_sample = True
    network.generation_config.depth_decoder_min_new_tokens = 1
    network.generation_config.depth_decoder_max_new_tokens = 1
    network.save_pretrained(folder, safe_serialization=True)
    extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=24000)
    CsmProcessor(extractor, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("csm") / "model"
    write_model(path)
    return path


@pytest.fixture(autouse=True)
def little_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_csm, "OPENING", "I read.")
    monkeypatch.setattr(voice_csm, "SPARE_S", 0.5)


def context(folder: Path, **options: str) -> EngineContext:
    return EngineContext(NoStore(), options={"model": str(folder), **options})


@pytest.fixture(scope="module")
def engine(folder: Path) -> Csm:
    return Csm.load(context(folder))


def said(engine: Csm, text: str, seed: int = 0) -> Audio:
    (block,) = engine.speak(text, 1.0, seed)
    return block


def same(a: Audio, b: Audio) -> bool:
    return a.samples.shape == b.samples.shape and bool(np.array_equal(a.samples, b.samples))


def test_one_seed_is_one_take(engine: Csm) -> None:
    takes = [said(engine, "Hi.", seed) for seed in (0, 1, 2, 0)]
    assert all(t.sample_rate == 24000 and t.samples.shape[0] == 1 for t in takes)
    assert all(t.samples.dtype == np.float32 and np.isfinite(t.samples).all() for t in takes)
    assert same(takes[0], takes[3])
    assert not same(takes[0], takes[1]) and not same(takes[0], takes[2])


def test_what_never_ends_is_ended(engine: Csm) -> None:
    assert said(engine, "Hi.").duration <= 3 / 8 + 0.5 + 0.1


def test_the_own_voice_is_one_that_stays_and_another_number_is_another(
    engine: Csm, folder: Path
) -> None:
    said(engine, "Hi.")
    assert engine._own is not None
    other = Csm.load(context(folder, voice="7"))
    said(other, "Hi.")
    assert other._own is not None and other._own.text == engine._own.text
    assert not np.array_equal(other._own.samples, engine._own.samples)


@pytest.mark.parametrize(("rate", "channels"), [(24000, 1), (44100, 2)])
def test_a_voice_is_taken_from_a_reference(engine: Csm, rate: int, channels: int) -> None:
    rng = np.random.default_rng(1)
    heard: list[int] = []
    reference = Audio(rng.normal(0, 0.1, (channels, rate)).astype(np.float32), rate)
    voice = engine.voice_of(reference, "Some words.")
    plain = engine._processor.apply_chat_template

    def watched(talk: list[dict[str, list[dict[str, str]]]], **named: object) -> object:
        inputs = plain(talk, **named)
        heard.append(int(inputs["input_values"].shape[-1]))
        return inputs

    engine._processor.apply_chat_template = watched
    try:
        (take,) = engine.speak_as("Hi.", voice, 0)
    finally:
        del engine._processor.apply_chat_template
    assert heard == [24000] and take.sample_rate == 24000
    assert list(engine.speak_as(" ", voice, 0)) == []


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="config.json"):
        Csm.load(context(tmp_path))
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not a CSM"):
        Csm.load(context(tmp_path))
    with pytest.raises(ConfigError) as raised:
        Csm.load(context(folder, voice="somebody.wav"))
    assert "consent" in (raised.value.hint or "")


def test_the_gate_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    status = availability("speaking", "csm", EngineContext(NoStore()))
    assert not status.available
    assert "Accept its terms" in status.hint and "hf download sesame/csm-1b" in status.hint
