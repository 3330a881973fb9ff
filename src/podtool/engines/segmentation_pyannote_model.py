"""PyanNet as a torch module, built only while a checkpoint is converted to ONNX.

Sinc filters: Ravanelli & Bengio, "Speaker recognition from raw waveform with SincNet", SLT 2018;
even and odd filters as in Pariente et al., "Filterbank design for end-to-end speech separation",
2020. Training target: Plaquet & Bredin, "Powerset multi-class cross entropy loss", Interspeech
2023. Names follow the published state dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def build(layers: int = 4, stride: int = 10, classes: int = 7) -> torch.nn.Module:
    """The network, untrained: (batch, samples at 16 kHz) -> (batch, frames, classes)."""
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import conv1d, leaky_relu, log_softmax

    class SincFilters(nn.Module):
        """40 band passes, each as an even and an odd filter of 251 taps."""

        def __init__(self) -> None:
            super().__init__()
            self.low_hz_ = nn.Parameter(torch.zeros(40, 1))
            self.band_hz_ = nn.Parameter(torch.zeros(40, 1))
            self.register_buffer("window_", torch.zeros(125))
            self.register_buffer("n_", torch.zeros(1, 125))

        def filters(self) -> Tensor:
            low = 50 + self.low_hz_.abs()
            high = torch.clamp(low + 50 + self.band_hz_.abs(), 50, 8000)
            band = (high - low)[:, 0]
            window = self.get_buffer("window_")
            n = self.get_buffer("n_")
            ft_low, ft_high = low @ n, high @ n
            even_left = (ft_high.sin() - ft_low.sin()) / (n / 2) * window
            odd_left = (ft_low.cos() - ft_high.cos()) / (n / 2) * window
            even = torch.cat([even_left, 2 * band[:, None], even_left.flip(1)], 1)
            odd = torch.cat([odd_left, torch.zeros_like(band)[:, None], -odd_left.flip(1)], 1)
            return torch.cat([even, odd], 0)[:, None] / (2 * band.repeat(2)[:, None, None])

    class SincLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filterbank = SincFilters()

        def forward(self, x: Tensor) -> Tensor:
            return conv1d(x, self.filterbank.filters(), stride=stride)

    class SincNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
            self.conv1d = nn.ModuleList([SincLayer(), nn.Conv1d(80, 60, 5), nn.Conv1d(60, 60, 5)])
            self.norm1d = nn.ModuleList([nn.InstanceNorm1d(c, affine=True) for c in (80, 60, 60)])
            self.pool = nn.MaxPool1d(3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.wav_norm1d(x)
            for i, (convolve, norm) in enumerate(zip(self.conv1d, self.norm1d, strict=True)):
                x = convolve(x)
                x = leaky_relu(norm(self.pool(x.abs() if i == 0 else x)))
            return x

    class PyanNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sincnet = SincNet()
            self.lstm = nn.LSTM(60, 128, layers, batch_first=True, bidirectional=True)
            self.linear = nn.ModuleList([nn.Linear(256, 128), nn.Linear(128, 128)])
            self.classifier = nn.Linear(128, classes)

        def forward(self, x: Tensor) -> Any:
            x = self.lstm(self.sincnet(x.unsqueeze(1)).transpose(1, 2))[0]
            for linear in self.linear:
                x = leaky_relu(linear(x))
            return log_softmax(self.classifier(x), -1)

    return PyanNet()
