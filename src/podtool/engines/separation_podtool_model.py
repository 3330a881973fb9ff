"""The network of podtool's own separators: band-split dual-path recurrence over a spectrogram.

The spectrum is split into bands, each band becomes a vector, and layers run along time (causal or
both ways) and along bands in turn; every band then gives complex masks for its bins (after
band-split RNN, Luo and Yu, 2023). Talkers get a mask each, the rest of the mixture is the
residual, so that all of them sum to the mixture by construction. How many talk is an input.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from podtool.errors import ModelError

COMPRESSION = 0.3  # of magnitudes
GROUPS = 16  # dimensions in which bands of one voice come together in training
MEMORY_S = 1.0  # of the running level that all levels are seen against


@dataclass(frozen=True, slots=True)
class NetworkParams:
    """The shape of a network: the recipe's [network] table."""

    sample_rate: int = 16000
    window: int = 512  # samples of a frame; also the latency of the causal form
    hop: int = 256
    bands: tuple[int, ...] = (4,) * 10 + (8,) * 7 + (16,) * 5 + (40, 41)  # bins of each
    channels: int = 64
    hidden: int = 96
    layers: int = 3
    talkers: int = 3
    causal: bool = True

    def __post_init__(self) -> None:
        if sum(self.bands) != self.window // 2 + 1:
            raise ValueError(f"the bands hold {sum(self.bands)} bins of the {self.window // 2 + 1}")
        if self.hop * 2 != self.window:
            raise ValueError("the hop is half of the window")


Cells = tuple[Tensor, Tensor]
# Of the causal form: hidden and cell, (layers, bands, hidden) each, and running levels (bins + 1,).
State = tuple[Tensor, Tensor, Tensor]


class BandSplit(nn.Module):
    """(batch, frames, bins, 2) spectrum and (batch,) talker counts -> complex masks."""

    into: Tensor
    back: Tensor

    def __init__(self, params: NetworkParams) -> None:
        super().__init__()
        self.params = params
        p, count = params, len(params.bands)
        widest = max(p.bands)
        bins = p.window // 2 + 1
        into = torch.full((count, widest), bins)  # bin of each place of a band; `bins`: none
        back = torch.zeros(bins, dtype=torch.long)  # place of each bin
        at = 0
        for k, width in enumerate(p.bands):
            into[k, :width] = torch.arange(at, at + width)
            back[at : at + width] = k * widest + torch.arange(width)
            at += width
        self.register_buffer("into", into.reshape(-1), persistent=False)
        self.register_buffer("back", back, persistent=False)
        self.encode = BandLinear(count, 4 * widest, p.channels)
        self.counted = nn.Embedding(p.talkers + 1, p.channels)
        with torch.no_grad():
            # What is heard leads from the first step: no constant beside it, every band as loud.
            self.counted.weight.zero_()
            for k, width in enumerate(p.bands):
                self.encode.weight[k].uniform_(-1, 1).mul_((3 / (4 * width)) ** 0.5)
        self.along_time = nn.ModuleList(
            Recurrent(p.channels, p.hidden, both_ways=not p.causal) for _ in range(p.layers)
        )
        self.along_bands = nn.ModuleList(
            Recurrent(p.channels, p.hidden, both_ways=True) for _ in range(p.layers)
        )
        self.group = nn.Linear(p.channels, GROUPS)
        self.norm = nn.LayerNorm(p.channels)
        self.widen = BandLinear(count, p.channels, 2 * p.channels)
        self.decode = BandLinear(count, 2 * p.channels, p.talkers * 2 * widest)
        with torch.no_grad():  # training begins from about equal shares of the mixture
            self.decode.weight.mul_(0.1)
            self.decode.bias.view(count, p.talkers, 2, widest)[:, :, 0] = 1 / p.talkers

    def forward(
        self, spectrum: Tensor, counts: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Masks (batch, frames, talkers, bins, 2), and the state after the last frame."""
        heard, after = self.listen(spectrum, counts, state)
        return self.masks(heard), after

    def listen(
        self, spectrum: Tensor, counts: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """(batch, frames, bands, channels) of what was made of a spectrum, and the state after."""
        p = self.params
        batch, frames, bins, _ = spectrum.shape
        bands = len(p.bands)
        features, levels = self._features(spectrum, None if state is None else state[2])
        seen = nn.functional.pad(features, (0, 0, 0, 1))[:, :, self.into]
        x = self.encode(seen.reshape(batch, frames, bands, -1))
        x = x + self.counted(counts)[:, None, None]
        hiddens, cells = [], []
        for k, (time, band) in enumerate(zip(self.along_time, self.along_bands, strict=True)):
            y = x.transpose(1, 2).reshape(batch * bands, frames, p.channels)
            before = None
            if state is not None:
                before = (state[0][k][None], state[1][k][None])
            y, (hidden, cell) = time(y, before)
            hiddens.append(hidden[0])
            cells.append(cell[0])
            x = x + y.reshape(batch, bands, frames, p.channels).transpose(1, 2)
            y, _ = band(x.reshape(batch * frames, bands, p.channels), None)
            x = x + y.reshape(batch, frames, bands, p.channels)
        return x, (torch.stack(hiddens), torch.stack(cells), levels)

    def masks(self, heard: Tensor) -> Tensor:
        """What was heard -> (batch, frames, talkers, bins, 2)."""
        p = self.params
        batch, frames, bands, _ = heard.shape
        wide = torch.tanh(self.widen(self.norm(heard)))
        masks = self.decode(wide).reshape(batch, frames, bands, p.talkers, 2, -1)
        masks = masks.permute(0, 1, 3, 4, 2, 5).reshape(batch, frames, p.talkers, 2, -1)
        placed: Tensor = masks.index_select(-1, self.back)  # its gradient is quick on a GPU
        return placed.transpose(-1, -2)

    def _features(self, spectrum: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """(batch, frames, bins, 4) of a spectrum, and the running levels after it.

        Compressed real and imaginary part, and the level of each bin against its own running mean
        and that of all bins. Without the running means, levels say little where recordings are
        loud and quiet, and training stays for long at one mask for all times.
        """
        p = self.params
        frames = spectrum.shape[1]
        level = torch.log10(spectrum.square().sum(-1) + 1e-10)
        decay = -p.hop / (p.sample_rate * MEMORY_S)  # natural logarithm, per frame
        at = torch.arange(frames, device=spectrum.device)
        ages = at[:, None] - at[None]
        weights = torch.exp(decay * ages.clamp(min=0)) * (ages >= 0)
        sums = torch.matmul(weights, level)
        counts = weights.sum(1)
        if before is not None:
            left = torch.exp(decay * (at + 1))
            sums = sums + left[:, None] * before[:-1]
            counts = counts + left * before[-1]
        mean = sums / counts[:, None]
        own = level - mean
        whole = level - mean.mean(-1, keepdim=True)
        phase = spectrum * 10 ** (-level / 2)[..., None]
        parts = phase * 10 ** (COMPRESSION / 2 * whole)[..., None]
        features = torch.cat((parts, own[..., None], whole[..., None]), -1)
        return features, torch.cat((sums[0, -1], counts[-1:]))


class BandLinear(nn.Module):
    """A linear layer of its own for every band: (..., bands, n) -> (..., bands, m)."""

    def __init__(self, bands: int, inputs: int, outputs: int) -> None:
        super().__init__()
        reach = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(bands, inputs, outputs).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.zeros(bands, outputs))

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, bands, inputs = x.shape
        rows = x.reshape(batch * frames, bands, inputs).transpose(0, 1)
        y = torch.bmm(rows, self.weight.to(rows.dtype)) + self.bias[:, None].to(rows.dtype)
        return y.transpose(0, 1).reshape(batch, frames, bands, -1)


class Recurrent(nn.Module):
    """Norm, LSTM and projection: what is added to (n, steps, channels), and the LSTM's state."""

    def __init__(self, channels: int, hidden: int, both_ways: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.lstm = nn.LSTM(channels, hidden, batch_first=True, bidirectional=both_ways)
        self.back = nn.Linear(hidden * (2 if both_ways else 1), channels)
        with torch.no_grad():
            # As drawn by torch, all layers together would add a tenth to what they hear, and
            # training would spend hours at what can be done without memory.
            for name, weight in self.lstm.named_parameters():
                if "weight_ih" in name:
                    weight.uniform_(-1, 1).mul_((3 / channels) ** 0.5)
                elif "weight_hh" in name:
                    for gate in torch.split(weight, hidden):
                        nn.init.orthogonal_(gate)
                elif "bias_ih" in name:
                    weight.zero_()[hidden : 2 * hidden] = 1  # remember
                else:
                    weight.zero_()
            self.back.weight.uniform_(-1, 1).mul_(2.5 / self.back.in_features**0.5)
            self.back.bias.zero_()

    def forward(self, x: Tensor, state: Cells | None) -> tuple[Tensor, Cells]:
        y, after = self.lstm(self.norm(x), state)
        return self.back(y), after


# ---------------------------------------------------------------- signals


def window_of(params: NetworkParams) -> Tensor:
    """The sine window, for analysis and synthesis: with a hop of half of it they give back all."""
    n = torch.arange(params.window, dtype=torch.float64)
    return torch.sin(torch.pi * (n + 0.5) / params.window).float()


def to_spectrum(samples: Tensor, params: NetworkParams) -> Tensor:
    """(batch, n) -> (batch, frames, bins, 2); n is a multiple of the hop, frames n / hop + 1."""
    padded = nn.functional.pad(samples, (params.hop, params.hop))
    frames = padded.unfold(-1, params.window, params.hop)
    window = window_of(params).to(samples.device)
    return torch.view_as_real(torch.fft.rfft(frames * window))


def to_samples(spectrum: Tensor, params: NetworkParams) -> Tensor:
    """The inverse of `to_spectrum` for any leading axes."""
    window = window_of(params).to(spectrum.device)
    pieces = torch.fft.irfft(torch.view_as_complex(spectrum.contiguous()), n=params.window)
    first, second = (pieces * window).split(params.hop, dim=-1)
    joined: Tensor = first[..., 1:, :] + second[..., :-1, :]
    return joined.flatten(-2)


def apply_masks(masks: Tensor, spectrum: Tensor) -> Tensor:
    """Complex product of (b, t, s, f, 2) masks and a (b, t, f, 2) spectrum -> (b, s, t, f, 2)."""
    real, imag = spectrum[:, :, None].unbind(-1)
    a, b = masks.unbind(-1)
    return torch.stack((a * real - b * imag, a * imag + b * real), -1).transpose(1, 2)


def band_powers(samples: Tensor, params: NetworkParams) -> Tensor:
    """(batch, talkers, n) -> (batch, talkers, frames, bands) of power."""
    n = samples.shape[-1]
    flat = nn.functional.pad(samples.flatten(0, 1), (0, -n % params.hop))
    power = to_spectrum(flat, params).square().sum(-1)
    bands = torch.stack([b.sum(-1) for b in torch.split(power, list(params.bands), -1)], -1)
    return bands.reshape(*samples.shape[:2], *bands.shape[1:])


def separate(network: BandSplit, mixture: Tensor, counts: Tensor) -> Tensor:
    """(batch, n) mixture -> (batch, talkers, n); places from `counts` on are silent."""
    return separate_and_group(network, mixture, counts)[0]


def separate_and_group(
    network: BandSplit, mixture: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """As `separate`, and (batch, frames, bands, GROUPS) of unit norm: near where voices agree."""
    p = network.params
    n = mixture.shape[-1]
    padded = nn.functional.pad(mixture, (0, -n % p.hop))
    spectrum = to_spectrum(padded, p)
    heard, _ = network.listen(spectrum, counts)
    masks = network.masks(heard).float()
    voices: Tensor = to_samples(apply_masks(masks, spectrum), p)[..., :n]
    present: Tensor = torch.arange(p.talkers, device=counts.device) < counts[:, None]
    groups = nn.functional.normalize(network.group(heard).float(), dim=-1)
    return voices * present[..., None], groups


# ---------------------------------------------------------------- files


def save(network: BandSplit, path: Path, about: dict[str, str] | None = None) -> None:
    """Weights as safetensors, the shape of the network in its metadata."""
    from safetensors.torch import save_file

    tensors = {k: v.contiguous() for k, v in network.state_dict().items()}
    save_file(tensors, path, {"network": json.dumps(asdict(network.params)), **(about or {})})


def load(path: Path) -> BandSplit:
    """A network from what `save` wrote. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Any] = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        shape = json.loads(metadata["network"])
        params = NetworkParams(**{**shape, "bands": tuple(shape["bands"])})
        network = BandSplit(params)
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path} does not hold a separator of podtool: {reason}") from None
    return network.eval()
