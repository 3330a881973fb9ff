"""The generator of HiFi-GAN (J. Kong, J. Kim, J. Bae, NeurIPS 2020) from features to samples.

Sizes are read from the checkpoint, and weight normalisation is folded into its weights once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podtool.errors import ModelError

SLOPE = 0.1
DILATIONS = (1, 3, 5)

Weights = dict[str, Any]


def folded(tensors: Mapping[str, Any]) -> Weights:
    """The weights of a generator with a linear layer before it, ready for `generate`.

    Raises ModelError where they are those of something else.
    """
    found: Weights = {}
    for name, value in tensors.items():
        if name.endswith(".weight_v"):
            gain = tensors[f"{name[:-1]}g"]
            norm = value.flatten(1).norm(dim=1).reshape(-1, *[1] * (value.dim() - 1))
            found[name[:-2]] = value * (gain / norm)
        elif not name.endswith(".weight_g"):
            found[name] = value
    ups = sum(n.startswith("ups.") and n.endswith(".weight") for n in found)
    blocks = len({n.split(".")[1] for n in found if n.startswith("resblocks.")})
    gone = {"lin_pre.weight", "conv_pre.weight", "conv_post.weight"} - found.keys()
    if gone or not ups or blocks % ups:
        raise ModelError("this is not a HiFi-GAN generator with a linear layer before it")
    return found


def generate(weights: Weights, features: Any) -> Any:
    """Features (n, d) -> (n * hop,) samples; hop is the product of the strides."""
    from torch.nn import functional as f

    def conv(name: str, x: Any, dilation: int = 1) -> Any:
        weight = weights[f"{name}.weight"]
        padding = (weight.shape[2] - 1) // 2 * dilation
        return f.conv1d(x, weight, weights[f"{name}.bias"], padding=padding, dilation=dilation)

    ups = sum(n.startswith("ups.") and n.endswith(".weight") for n in weights)
    each = len({n.split(".")[1] for n in weights if n.startswith("resblocks.")}) // ups
    x = f.linear(features, weights["lin_pre.weight"], weights["lin_pre.bias"])
    x = conv("conv_pre", x.T[None])
    for i in range(ups):
        weight = weights[f"ups.{i}.weight"]
        size = weight.shape[2]
        stride = size // 2  # as in every published configuration
        x = f.conv_transpose1d(
            f.leaky_relu(x, SLOPE), weight, weights[f"ups.{i}.bias"], stride, (size - stride) // 2
        )
        total: Any = 0
        for block in range(i * each, (i + 1) * each):
            y = x
            for j, dilation in enumerate(DILATIONS):
                name = f"resblocks.{block}"
                z = conv(f"{name}.convs1.{j}", f.leaky_relu(y, SLOPE), dilation)
                y = y + conv(f"{name}.convs2.{j}", f.leaky_relu(z, SLOPE))
            total = total + y
        x = total / each
    return conv("conv_post", f.leaky_relu(x)).tanh()[0, 0]
