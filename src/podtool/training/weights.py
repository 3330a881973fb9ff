"""Weights as the bytes of a safetensors file."""

from __future__ import annotations

import json


def ordered(weights: bytes) -> bytes:
    """The same safetensors with its metadata in order: equal trainings give equal files."""
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + weights[8 + size :]


def halved(weights: bytes) -> bytes:
    """The same in half precision: half of the bytes, each value within a two-thousandth of itself.

    What reads them into a network of single precision needs not know.
    """
    import torch
    from safetensors.torch import load, save

    size = int.from_bytes(weights[:8], "little")
    metadata = json.loads(weights[8 : 8 + size]).get("__metadata__")
    tensors = {
        name: value.half() if value.dtype == torch.float32 else value
        for name, value in load(weights).items()
    }
    return ordered(save(tensors, metadata))
