"""A Whisper for MLX with constructed weights: the real network, a fixed text, any size.

The blocks of its decoder add nothing, so the position alone picks each token; the encoder and the
cross-attention do all their work on random weights. What it says is the same for every window.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

# Width, blocks, heads (Whisper tiny: 384, 4, 6), and what it says.
SIZES = {
    "smallest": (32, 1, 2, " Yes."),
    "half": (192, 2, 3, " The quick brown fox jumps over a lazy dog while we all talk."),
}


def write(folder: Path, size: str) -> None:
    """Write config.json and weights.safetensors of the multilingual Whisper of a size."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_whisper.tokenizer import get_tokenizer
    from mlx_whisper.whisper import ModelDimensions, Whisper

    width, blocks, heads, text = SIZES[size]
    config = {
        "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": width, "n_audio_head": heads,
        "n_audio_layer": blocks, "n_vocab": 51865, "n_text_ctx": 448, "n_text_state": width,
        "n_text_head": heads, "n_text_layer": blocks,
    }  # fmt: skip
    mx.random.seed(0)
    parameters: Any = tree_flatten(Whisper(ModelDimensions(**config), mx.float32).parameters())
    weights = {
        name: np.array(value)
        for name, value in parameters
        if name != "alignment_heads" and not name.split(".")[-1].startswith("_")
    }
    for name, value in weights.items():
        if name.startswith("decoder") and (".out." in name or ".mlp2." in name):
            weights[name] = np.zeros_like(value)
    tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
    start = tokenizer.timestamp_begin
    tokens = np.zeros((config["n_vocab"], width), np.float32)
    positions = np.zeros((config["n_text_ctx"], width), np.float32)
    script = [start, *tokenizer.encode(text), start + 50, tokenizer.eot]
    for position, token in enumerate(script, start=2):  # after start, language and task
        tokens[token, position], positions[position, position] = 1.0, 10.0
    weights["decoder.token_embedding.weight"] = tokens
    weights["decoder.positional_embedding"] = positions
    weights["decoder.ln.weight"] = np.full(width, 4.0, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper", **config}))
    half = {name: mx.array(value).astype(mx.float16) for name, value in weights.items()}
    mx.save_safetensors(str(folder / "weights.safetensors"), half)
