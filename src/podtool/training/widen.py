"""Starting one network from the weights of another: offline from causal, deep from shallow."""

from __future__ import annotations

import torch
from torch import Tensor

from podtool.engines.separation_podtool_model import BandSplit
from podtool.errors import ConfigError


def fill(network: BandSplit, source: BandSplit) -> None:
    """Weights of `source` into `network`, which may have more layers, and run both ways in time.

    What is new begins as it was drawn and its way into the sum as zero, so that the network begins
    as what `source` was. Raises ConfigError where the shapes are not alike.
    """
    have = source.state_dict()
    own = network.state_dict()
    filled: dict[str, Tensor] = {}
    for name in have.keys() | own.keys():
        given, drawn = have.get(name), own.get(name)
        if given is not None and drawn is not None and given.shape == drawn.shape:
            filled[name] = given
        elif given is None and drawn is not None and _deeper(name, source):
            filled[name] = torch.zeros_like(drawn) if ".back." in name else drawn
        elif given is None and drawn is not None and "_reverse" in name:
            filled[name] = drawn
        elif given is not None and drawn is not None and name.endswith("back.weight"):
            filled[name] = torch.cat((given, torch.zeros_like(given)), dim=1)
        else:
            raise ConfigError(f"the weights to start with do not fit this network: {name}")
    try:
        network.load_state_dict(filled)
    except RuntimeError:
        raise ConfigError("the weights to start with do not fit this network") from None


def _deeper(name: str, source: BandSplit) -> bool:
    """Whether a parameter is of a layer behind the last one of `source`."""
    part, _, rest = name.partition(".")
    return part.startswith("along_") and int(rest.partition(".")[0]) >= source.params.layers
