"""The network of podtool's voice converter: what is said, and how a given voice says it.

The first half turns what a recogniser's encoder heard, and the shape of the spectrum with the
speaker's own mean and spread taken out, into a narrow description of sounds that is taught by
phones. The second gives the mel-cepstra of those sounds in a voice, of which it is given frames
with their sounds: it looks up how the voice says what is like each moment (attention), beside the
voice's means and spreads. Sources: M. Baas, B. van Niekerk, H. Kamper, "Voice conversion with just
nearest neighbors", Interspeech 2023 (looking up the target's frames; here what is near is learnt);
L. Sun et al., "Phonetic posteriorgrams for many-to-one voice conversion", ICME 2016.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from podtool.engines.converter_frames import CEPSTRA, PHONES, PITCH, SHAPE, STATES, VOICE
from podtool.errors import ModelError


@dataclass(frozen=True, slots=True)
class ConverterParams:
    """The shape of the network: the recipe's [network] table."""

    channels: int = 160
    sound_layers: int = 2
    voice_layers: int = 4
    kernel: int = 3
    sounds: int = 48  # dimensions of what is said
    heads: int = 4  # ways of looking up
    keys: int = 32  # dimensions by which sounds are compared
    voice: int = 64  # dimensions of the voice's means and spreads

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError("kernel is odd")


class Layer(nn.Module):
    """(b, n, c) -> the same: a gated convolution along time beside the way past it."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv1d(channels, 2 * channels, kernel, dilation=dilation, padding=padding)
        self.back = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2).chunk(2, dim=2)
        found: Tensor = x + self.back(value * torch.sigmoid(gate))
        return found


def _layers(count: int, params: ConverterParams) -> nn.Sequential:
    return nn.Sequential(
        *(Layer(params.channels, params.kernel, 2 ** (k % 3)) for k in range(count))
    )


class Converter(nn.Module):
    """`listen` gives the sounds of speech, `speak` says them in a voice."""

    middle: Tensor
    spread: Tensor

    def __init__(self, params: ConverterParams) -> None:
        super().__init__()
        p = self.params = params
        self.register_buffer("middle", torch.zeros(CEPSTRA))  # of all cepstra taught
        self.register_buffer("spread", torch.ones(CEPSTRA))
        self.heard = nn.Sequential(nn.LayerNorm(STATES), nn.Linear(STATES, p.channels))
        self.shaped = nn.Linear(SHAPE, p.channels)
        self.sound_layers = _layers(p.sound_layers, p)
        self.narrow = nn.Sequential(
            nn.LayerNorm(p.channels),
            nn.Linear(p.channels, p.sounds),
            nn.LayerNorm(p.sounds, elementwise_affine=False),
        )
        self.phones = nn.Linear(p.sounds, len(PHONES))
        self.query = nn.Linear(p.sounds, p.heads * p.keys)
        self.key = nn.Linear(p.sounds, p.heads * p.keys)
        self.sharpness = nn.Parameter(torch.full((p.heads, 1, 1), 2.5))
        self.voice = nn.Sequential(nn.Linear(VOICE, p.voice), nn.SiLU())
        given = p.sounds + p.heads * CEPSTRA + PITCH + p.voice
        self.joined = nn.Linear(given, p.channels)
        self.voice_layers = _layers(p.voice_layers, p)
        self.last = nn.LayerNorm(p.channels)
        self.said = nn.Linear(p.channels, CEPSTRA)
        self.trust = nn.Parameter(torch.full((CEPSTRA,), 0.5))  # in what the first head looks up

    def listen(self, states: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """(b, n, 288) and (b, n, 31) -> sounds (b, n, sounds) and phones as log-odds (b, n, 40)."""
        found = self.narrow(self.sound_layers(self.heard(states) + self.shaped(shape)))
        return found, self.phones(found)

    def speak(
        self,
        sounds: Tensor,
        pitch: Tensor,
        known_sounds: Tensor,
        known_cepstra: Tensor,
        voice: Tensor,
        speech: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sounds (b, n, sounds) with their pitch (b, n, 4) in the voice of known frames.

        known_sounds (b, m, sounds), known_cepstra (b, m, 40), voice (b, 161); `speech` (b, m) tells
        which known frames may be looked up, None: all. Gives cepstra (b, n, 40) and what they are
        a linear function of, (b, n, channels).
        """
        looked_up = self._look_up(sounds, known_sounds, self.normal(known_cepstra), speech)
        whose = self.voice(voice)[:, None].expand(-1, sounds.shape[1], -1)
        x = self.joined(torch.cat((sounds, looked_up, pitch, whose), dim=2))
        hidden = self.last(self.voice_layers(x))
        found = self.said(hidden) + self.trust * looked_up[:, :, :CEPSTRA]
        return found * self.spread + self.middle, hidden

    def normal(self, cepstra: Tensor) -> Tensor:
        """Cepstra with the mean and spread of all that was taught taken out."""
        return (cepstra - self.middle) / self.spread

    def _look_up(
        self, sounds: Tensor, known: Tensor, values: Tensor, speech: Tensor | None
    ) -> Tensor:
        """(b, n, heads * 40): means of the values, weighted by how alike the sounds are."""
        p = self.params

        def split(x: Tensor) -> Tensor:
            parts = x.reshape(x.shape[0], x.shape[1], p.heads, p.keys).transpose(1, 2)
            return functional.normalize(parts, dim=3)

        alike = split(self.query(sounds)) @ split(self.key(known)).transpose(2, 3)
        alike = alike * self.sharpness.exp()
        if speech is not None:
            alike = alike.masked_fill(speech[:, None, None] < 0.5, -1e4)
        found = alike.softmax(dim=3) @ values[:, None].to(alike.dtype)
        return found.transpose(1, 2).flatten(2)


def save(network: Converter, path: Path, about: dict[str, str] | None = None) -> None:
    """Weights as safetensors in half precision, the shape of the network in its metadata."""
    from safetensors.torch import save_file

    tensors = {k: v.half().contiguous() for k, v in network.state_dict().items()}
    save_file(tensors, path, {"network": json.dumps(asdict(network.params)), **(about or {})})


def load(path: Path) -> Converter:
    """A network from what `save` wrote. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Any] = {
                k: file.get_tensor(k).float()
                for k in file.keys()  # noqa: SIM118
            }
        network = Converter(ConverterParams(**json.loads(metadata["network"])))
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path} does not hold a converter of podtool: {reason}") from None
    return network.eval()
