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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from podtool.engines.converter_frames import CEPSTRA, PHONES, PITCH, SHAPE, STATES, VOICE
from podtool.engines.world_profile import Adapted
from podtool.errors import ModelError

if TYPE_CHECKING:
    from podtool.engines.voice_podtool import Known

Samples = NDArray[np.float32]


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


LISTENING = ("heard.", "shaped.", "sound_layers.", "narrow.", "phones.")


def speaking_tensors(network: Converter) -> dict[str, nn.Parameter]:
    """Name -> the weights of the half that speaks."""
    return {k: v for k, v in network.named_parameters() if not k.startswith(LISTENING)}


def adapted_of(network: Converter) -> Adapted:
    """The half that speaks, as a voice keeps it: in half precision."""
    tensors = {
        k: v.half().float().numpy()
        for k, v in network.state_dict().items()
        if not k.startswith(LISTENING)
    }
    return Adapted(json.dumps(asdict(network.params), sort_keys=True), tensors)


class SpeakingHalf:
    """The half that speaks with the weights of one voice, through torch; as `Network.speak`."""

    def __init__(self, adapted: Adapted) -> None:
        """Raises ModelError for tensors that are not those of the network that they name."""
        try:
            self.network = Converter(ConverterParams(**json.loads(adapted.network))).eval()
            own = {k for k in self.network.state_dict() if not k.startswith(LISTENING)}
            if own != set(adapted.tensors):
                raise ValueError(f"{len(adapted.tensors)} tensors for {len(own)}")
            tensors = {k: torch.from_numpy(v) for k, v in adapted.tensors.items()}
            self.network.load_state_dict(tensors, strict=False)
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"the voice's own weights do not fit: {reason}", "Clone it again."
            ) from None

    def speak(self, sounds: Samples, pitch: Samples, known: Known) -> tuple[Samples, Samples]:
        """(n, k) and (n, 4) -> cepstra (n, 40) and what they are a linear function of (n, c)."""
        given = (sounds, pitch, known.sounds, known.cepstra, known.voice)
        with torch.inference_mode():
            found = self.network.speak(*(torch.from_numpy(np.float32(x))[None] for x in given))
        return found[0][0].numpy(), found[1][0].numpy()


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
