"""Small causal forms of the families of networks that separate talkers, for families.py.

Each is a module from a (batch, n) mixture at 16 kHz to (batch, TALKERS, n) voices and, where it has
embeddings of bands, those for the grouping loss. All hear about 32 ms ahead: the spectral ones by
their window, the others by a window of 4 ms and frames that are given later than they are heard.
What served podtool's own network serves all: levels against what was heard before, masks that begin
at equal shares, and (Recurrent) weights drawn so that the memory counts from the first step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, normalize, pad, scaled_dot_product_attention, silu

from podtool.engines.separation_podtool_model import (
    GROUPS,
    BandSplit,
    NetworkParams,
    Recurrent,
    apply_masks,
    separate_and_group,
    to_samples,
    to_spectrum,
)

TALKERS = 2
Found = tuple[Tensor, Tensor | None]  # voices, and embeddings (batch, frames, bands, GROUPS)


class Family(nn.Module):
    """A mixture to what was `Found`. `latency`: samples until what was heard is given. `extra`:
    samples whose frames are worked on beyond those that it gets. `grid`: of its embeddings."""

    latency: int
    extra: int
    grid: NetworkParams | None = None


# ---------------------------------------------------------------- spectral


class Ours(Family):
    """BandSplit as it is; it gives what it has as many places for as the recipe names."""

    def __init__(self, params: NetworkParams) -> None:
        super().__init__()
        self.network = BandSplit(params)
        self.grid, self.latency, self.extra = params, params.window, params.hop

    def forward(self, mixture: Tensor) -> Found:
        counts = torch.full((len(mixture),), TALKERS, device=mixture.device)
        voices, groups = separate_and_group(self.network, mixture, counts)
        return voices[:, :TALKERS], groups


class TfGridNet(Family):
    """Every bin has features of its own; runs of bins go through an LSTM along frequency, then one
    along time, which all share, and all frames of a second attend to each other (after TF-GridNet,
    Wang et al., 2023)."""

    _features = BandSplit._features  # what the spectrum is seen as is not the family's matter

    def __init__(self, channels: int = 16, run: int = 4, hidden: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.params = NetworkParams()
        self.latency, self.extra = self.params.window, self.params.hop
        bins = self.params.window // 2 + 1
        self.short = -bins % run  # bins that the last run lacks
        self.runs = (bins + self.short) // run
        self.grid = NetworkParams(bands=(run,) * (self.runs - 1) + (run - self.short,))
        width = channels * run
        self.encode = nn.Conv2d(4, channels, 3)
        self.along_bands = nn.ModuleList(Recurrent(width, hidden, True) for _ in range(layers))
        self.along_time = nn.ModuleList(Recurrent(width, hidden, False) for _ in range(layers))
        self.attend = nn.ModuleList(FrameAttention(width, self.runs) for _ in range(layers))
        self.group = nn.Linear(width, GROUPS)
        self.norm = nn.LayerNorm(width)
        self.decode = nn.Conv2d(channels, TALKERS * 2, 3)
        equal_shares(self.decode)

    def forward(self, mixture: Tensor) -> Found:
        p, n = self.params, mixture.shape[-1]
        spectrum = to_spectrum(pad(mixture, (0, -n % p.hop)), p)
        features, _ = self._features(spectrum, None)
        batch, frames, bins, _ = features.shape
        x = self.encode(around(features.movedim(-1, 1)))  # (batch, channels, frames, bins)
        x = pad(x, (0, self.short)).permute(0, 2, 3, 1)
        x = x.reshape(batch, frames, self.runs, -1)
        for bands, time, attend in zip(self.along_bands, self.along_time, self.attend, strict=True):
            y, _ = bands(x.flatten(0, 1), None)
            x = x + y.reshape(x.shape)
            y, _ = time(x.transpose(1, 2).flatten(0, 1), None)
            x = x + y.reshape(batch, self.runs, frames, -1).transpose(1, 2)
            x = x + attend(x)
        groups = normalize(self.group(x).float(), dim=-1)
        x = self.norm(x).reshape(batch, frames, bins + self.short, -1)[:, :, :bins]
        masks = self.decode(around(x.movedim(-1, 1))).float()
        masks = masks.reshape(batch, TALKERS, 2, frames, bins).permute(0, 3, 1, 4, 2)
        return to_samples(apply_masks(masks, spectrum), p)[..., :n], groups


def around(x: Tensor) -> Tensor:
    """Room for a kernel of 3: two frames before, a bin on both sides."""
    return pad(x, (1, 1, 2, 0))


class FrameAttention(nn.Module):
    """Each frame, with all of its runs, attends to those of the last second."""

    def __init__(self, width: int, runs: int, each: int = 4, frames: int = 64) -> None:
        super().__init__()
        self.reach = frames
        self.norm = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 2 * each)
        self.tell = nn.Linear(width, width // 4)
        self.back = nn.Linear(width // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        query, key = self.ask(y).chunk(2, -1)
        at = torch.arange(x.shape[1], device=x.device)
        age = at[:, None] - at
        near = (age >= 0) & (age < self.reach)
        told = self.tell(y)
        found = scaled_dot_product_attention(
            query.flatten(2), key.flatten(2), told.flatten(2), attn_mask=near
        )
        given: Tensor = self.back(found.reshape(told.shape))
        return given


# ---------------------------------------------------------------- learned filters


class Filterbank(Family):
    """Masks of a learned filterbank, from a `body` that takes (batch, frames, channels) to the same
    and looks `waits` frames ahead of itself; all of it `ahead` frames later than it is heard."""

    def __init__(
        self,
        body: nn.Module,
        channels: int,
        ahead: int = 0,
        waits: int = 0,
        filters: int = 256,
        window: int = 64,
    ) -> None:
        super().__init__()
        self.body, self.ahead, self.window, self.hop = body, ahead, window, window // 2
        self.latency = window + (ahead + waits) * self.hop
        self.extra = (1 + ahead) * self.hop
        shape = torch.sin(torch.pi * (torch.arange(window) + 0.5) / window)
        drawn = nn.init.orthogonal_(torch.empty(filters, window)) * shape
        self.encode = nn.Parameter(drawn.T.clone())  # together they begin as the identity
        self.decode = nn.Parameter(drawn.clone())
        self.enter = nn.Linear(filters, channels)
        self.leave = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, TALKERS * filters))
        equal_shares(self.leave[1])

    def forward(self, mixture: Tensor) -> Found:
        n, hop = mixture.shape[-1], self.hop
        padded = pad(mixture, (hop, hop + -n % hop + self.ahead * hop))
        coded = padded.unfold(-1, self.window, hop) @ self.encode
        power = coded.float().square().mean(-1, keepdim=True).cumsum(1) + 1e-9
        count = torch.arange(1, coded.shape[1] + 1, device=mixture.device)
        level = (power / count[:, None]).sqrt()
        x = self.enter(torch.log1p(10 * torch.relu(coded) / level))
        masks = self.leave(self.body(x)[:, self.ahead :])
        coded = coded[:, : masks.shape[1]]
        masks = masks.reshape(*coded.shape[:2], TALKERS, -1).transpose(1, 2)
        first, second = ((masks * coded[:, None]) @ self.decode).float().split(hop, -1)
        joined = first[:, :, 1:] + second[:, :, :-1]
        return joined.flatten(-2)[..., :n], None


def conv_tasnet(
    channels: int = 160, hidden: int = 320, dilations: int = 7, repeats: int = 2
) -> Family:
    """Dilated depthwise convolutions, each frame normed by itself (Luo and Mesgarani, 2019)."""
    layers = [Dilated(channels, hidden, 2**k) for _ in range(repeats) for k in range(dilations)]
    return Filterbank(nn.Sequential(*layers), channels, ahead=14)


class Dilated(nn.Module):
    def __init__(self, channels: int, hidden: int, dilation: int) -> None:
        super().__init__()
        self.into = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.PReLU(), nn.LayerNorm(hidden)
        )
        self.past = Past(hidden, 3, dilation)
        self.back = nn.Sequential(nn.PReLU(), nn.LayerNorm(hidden), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.back(self.past(self.into(x)))
        return x + added


class Past(nn.Module):
    """A filter of the last frames for each channel."""

    def __init__(self, channels: int, taps: int, dilation: int = 1) -> None:
        super().__init__()
        reach = (3 / taps) ** 0.5
        self.weight = nn.Parameter(torch.empty(channels, 1, taps).uniform_(-reach, reach))
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        channels, _, taps = self.weight.shape
        before = pad(x.transpose(1, 2), ((taps - 1) * self.dilation, 0))
        found = conv1d(before, self.weight, dilation=self.dilation, groups=channels)
        return found.transpose(1, 2)


def dprnn(channels: int = 64, hidden: int = 128, layers: int = 6, chunk: int = 16) -> Family:
    """Both ways within chunks, forwards over chunks (Luo et al., 2020); these do not overlap."""
    return Filterbank(DualPath(channels, hidden, layers, chunk), channels, waits=chunk - 1)


class DualPath(nn.Module):
    def __init__(self, channels: int, hidden: int, layers: int, chunk: int) -> None:
        super().__init__()
        self.chunk = chunk
        self.within = nn.ModuleList(Recurrent(channels, hidden, True) for _ in range(layers))
        self.over = nn.ModuleList(Recurrent(channels, hidden, False) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[1]
        x = chunked(x, self.chunk)
        for within, over in zip(self.within, self.over, strict=True):
            y, _ = within(x.flatten(0, 1), None)
            x = x + y.reshape(x.shape)
            y, _ = over(x.transpose(1, 2).flatten(0, 1), None)
            x = x + y.reshape(len(x), self.chunk, -1, x.shape[-1]).transpose(1, 2)
        return x.flatten(1, 2)[:, :frames]


def skim(channels: int = 96, hidden: int = 192, layers: int = 4, segment: int = 48) -> Family:
    """An LSTM begins anew in each segment with what others make of how it ended in those before
    (Li et al., 2022)."""
    return Filterbank(Skipping(channels, hidden, layers, segment), channels, ahead=14)


class Skipping(nn.Module):
    def __init__(self, channels: int, hidden: int, layers: int, segment: int) -> None:
        super().__init__()
        self.segment = segment
        self.within = nn.ModuleList(Recurrent(channels, hidden, False) for _ in range(layers))
        self.over = nn.ModuleList(
            nn.ModuleList(Recurrent(hidden, hidden, False) for _ in range(2))
            for _ in range(layers - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[1]
        x = chunked(x, self.segment)
        batch, count = x.shape[:2]
        state = None
        for k, within in enumerate(self.within):
            y, ended = within(x.flatten(0, 1), state)
            x = x + y.reshape(x.shape)
            if k < len(self.over):
                state = self._before(ended, self.over[k], batch, count)
        return x.flatten(1, 2)[:, :frames]

    def _before(
        self, ended: Sequence[Tensor], memories: nn.ModuleList, batch: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """How each segment begins in the next layer: from all that ended before it."""
        states = []
        for end, memory in zip(ended, memories, strict=True):
            rows = end.reshape(batch, count, -1)
            rows = rows + memory(rows, None)[0]
            states.append(pad(rows, (0, 0, 1, -1)).reshape(1, batch * count, -1))
        return states[0], states[1]


def chunked(x: Tensor, size: int) -> Tensor:
    """(batch, frames, channels) -> (batch, chunks, size, channels), zeros at the end."""
    return pad(x, (0, 0, 0, -x.shape[1] % size)).unflatten(1, (-1, size))


def mossformer(channels: int = 128, layers: int = 5, window: int = 48) -> Family:
    """Gated attention and a memory without recurrence in turn (after MossFormer2, Zhao et al.,
    2024)."""
    parts = [part for k in range(layers) for part in (Gated(channels, window), Fsmn(channels, k))]
    return Filterbank(nn.Sequential(*parts), channels, ahead=14)


class Gated(nn.Module):
    """A gated unit that attends to the last frames one by one, to all before them linearly."""

    def __init__(self, channels: int, window: int, keys: int = 64, taps: int = 8) -> None:
        super().__init__()
        self.window, self.keys, self.inner = window, keys, 2 * channels
        self.norm = nn.LayerNorm(channels)
        self.into = nn.Linear(channels, 2 * self.inner + keys)
        self.past = Past(2 * self.inner + keys, taps)
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(4, keys))
        self.shift = nn.Parameter(torch.zeros(4, keys))
        self.found = nn.LayerNorm(self.inner)
        self.back = nn.Linear(self.inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        frames, size = x.shape[1], self.window
        y = self.into(self.norm(x))
        y = silu(y + self.past(y))
        gate, told, plain = y.split((self.inner, self.inner, self.keys), -1)
        told, plain = chunked(told, size), chunked(plain, size)
        near_ask, near_key, far_ask, far_key = (
            plain * scale + shift for scale, shift in zip(self.scale, self.shift, strict=True)
        )
        match = near_ask @ with_last(near_key).transpose(-1, -2) / self.keys**0.5
        age = torch.arange(size, 2 * size)[:, None] - torch.arange(2 * size)
        near = ((age >= 0) & (age < size)).to(match)
        found = (torch.relu(match).square() * near) @ with_last(told) / size
        known = (far_key.transpose(-1, -2) @ told / size).cumsum(1)
        known = pad(known, (0, 0, 0, 0, 1, -1))
        counts = torch.arange(known.shape[1], device=x.device).clamp(min=1)
        found = found + far_ask @ (known / counts[:, None, None]).to(far_ask)
        found = self.found(found.flatten(1, 2)[:, :frames])
        added: Tensor = self.back(gate * found)
        return x + added


def with_last(x: Tensor) -> Tensor:
    """(batch, chunks, size, n) -> (batch, chunks, 2 size, n): the chunk before and each chunk."""
    return torch.cat((pad(x, (0, 0, 0, 0, 1, -1)), x), 2)


class Fsmn(nn.Module):
    """A feed-forward memory: gated, by long filters of the past."""

    def __init__(self, channels: int, layer: int, taps: int = 16) -> None:
        super().__init__()
        self.into = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 2 * channels))
        self.past = Past(channels, taps, 2 ** (layer % 4))
        self.back = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate, kept = self.into(x).chunk(2, -1)
        added: Tensor = self.back(silu(gate) * (kept + self.past(kept)))
        return x + added


def equal_shares(last: nn.Linear | nn.Conv2d) -> None:
    """Masks, or their real and imaginary parts, begin near an equal part of the mixture."""
    parts = 2 if isinstance(last, nn.Conv2d) else 1
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.view(TALKERS, parts, -1).zero_()[:, 0] = 1 / TALKERS
