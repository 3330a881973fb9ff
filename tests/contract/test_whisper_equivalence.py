"""mlx-whisper and Whisper in torch on the same weights: the same logits, the same greedy tokens."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from podtool.engines.torchaudio_stub import make_harmless

WIDTH, BLOCKS, HEADS, VOCABULARY = 32, 2, 2, 200
NAMES = (
    (r"\bblocks\b", "layers"),
    (r"\bcross_attn_ln\b", "encoder_attn_layer_norm"),
    (r"\battn_ln\b", "self_attn_layer_norm"),
    (r"\bcross_attn\b", "encoder_attn"),
    (r"\battn\b", "self_attn"),
    (r"\bquery\b", "q_proj"),
    (r"\bkey\b", "k_proj"),
    (r"\bvalue\b", "v_proj"),
    (r"\bout\b", "out_proj"),
    (r"\bmlp1\b", "fc1"),
    (r"\bmlp2\b", "fc2"),
    (r"\bmlp_ln\b", "final_layer_norm"),
    (r"\bln_post\b|\bdecoder\.ln\b", "layer_norm"),
    (r"\btoken_embedding\b", "embed_tokens"),
    (r"\bpositional_embedding\b", "embed_positions.weight"),
)


def torch_name(name: str) -> str:
    name = name.replace("decoder.ln.", "decoder.layer_norm.")
    for pattern, plain in NAMES:
        name = re.sub(pattern, plain, name)
    return f"model.{name}"


@pytest.mark.slow
@pytest.mark.engine("mlx-whisper")
def test_logits_and_greedy_tokens_agree() -> None:
    mx = pytest.importorskip("mlx.core")
    pytest.importorskip("mlx_whisper")
    pytest.importorskip("transformers")
    import torch
    from mlx.utils import tree_flatten
    from mlx_whisper.whisper import ModelDimensions, Whisper

    make_harmless()
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    mx.random.seed(0)
    ours = Whisper(
        ModelDimensions(80, 1500, WIDTH, HEADS, BLOCKS, VOCABULARY, 64, WIDTH, HEADS, BLOCKS),
        mx.float32,
    )
    theirs = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=VOCABULARY, num_mel_bins=80, encoder_layers=BLOCKS, decoder_layers=BLOCKS,
            encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, d_model=WIDTH,
            encoder_ffn_dim=4 * WIDTH, decoder_ffn_dim=4 * WIDTH, max_target_positions=64,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
            begin_suppress_tokens=None, suppress_tokens=None,
        )
    ).eval()  # fmt: skip
    rng = np.random.default_rng(0)
    positions = mx.array(rng.normal(0, 0.5, (64, WIDTH)).astype(np.float32))
    ours.decoder.positional_embedding = positions
    parameters: Any = tree_flatten(ours.parameters())
    weights = {
        torch_name(name): torch.from_numpy(np.array(value))
        for name, value in parameters
        if name != "alignment_heads" and not name.split(".")[-1].startswith("_")
    }
    for name in list(weights):
        if "conv" in name and weights[name].ndim == 3:  # MLX has channels last
            weights[name] = weights[name].permute(0, 2, 1).contiguous()
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    left, unknown = theirs.load_state_dict(weights, strict=False)
    assert unknown == [] and left == ["model.encoder.embed_positions.weight"]  # sinusoids in both
    mel = rng.normal(0, 1, (1, 80, 3000)).astype(np.float32)
    states = ours.encoder(mx.array(mel.transpose(0, 2, 1)))
    told: list[int] = [1]
    for _ in range(12):
        logits, _, _ = ours.decoder(mx.array([told]), states)
        with torch.no_grad():
            other = theirs(
                input_features=torch.from_numpy(mel), decoder_input_ids=torch.tensor([told])
            ).logits.numpy()
        assert np.allclose(np.array(logits), other, atol=2e-3)
        assert int(np.array(logits)[0, -1].argmax()) == int(other[0, -1].argmax())
        told.append(int(other[0, -1].argmax()))
    assert len(set(told)) > 2
