"""CAM++ as a torch module, built only while a checkpoint is converted to ONNX.

Network: Wang et al., "CAM++: A fast and efficient network for speaker verification using
context-aware masking", Interspeech 2023. Names follow the published state dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def build(features: int = 80, embedding: int = 192) -> torch.nn.Module:
    """The network, untrained: (batch, frames, features) -> (batch, embedding)."""
    from torch import Tensor, cat, nn
    from torch.nn.functional import avg_pool1d, relu

    def norm_relu(channels: int) -> nn.Sequential:
        block = nn.Sequential()
        block.add_module("batchnorm", nn.BatchNorm1d(channels))
        block.add_module("relu", nn.ReLU())
        return block

    class ResidualBlock(nn.Module):
        def __init__(self, channels: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, channels, 3, (stride, 1), 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
            self.shortcut = nn.Sequential()
            if stride != 1:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(channels, channels, 1, (stride, 1), bias=False),
                    nn.BatchNorm2d(channels),
                )

        def forward(self, x: Tensor) -> Any:
            y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
            return relu(y + self.shortcut(x))

    class Head(nn.Module):
        def __init__(self, channels: int = 32) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, channels, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.layer1 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
            self.layer2 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
            self.conv2 = nn.Conv2d(channels, channels, 3, (2, 1), 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)

        def forward(self, x: Tensor) -> Any:
            x = relu(self.bn1(self.conv1(x.unsqueeze(1))))
            x = relu(self.bn2(self.conv2(self.layer2(self.layer1(x)))))
            return x.flatten(1, 2)

    class Tdnn(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.linear = nn.Conv1d(inputs, outputs, 5, 2, 2, bias=False)
            self.nonlinear = norm_relu(outputs)

        def forward(self, x: Tensor) -> Any:
            return self.nonlinear(self.linear(x))

    class ContextMask(nn.Module):
        """A convolution, masked by what the whole clip and each second of it are like."""

        def __init__(self, inputs: int, outputs: int, dilation: int, segment: int = 100) -> None:
            super().__init__()
            self.linear_local = nn.Conv1d(
                inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False
            )
            self.linear1 = nn.Conv1d(inputs, inputs // 2, 1)
            self.linear2 = nn.Conv1d(inputs // 2, outputs, 1)
            self.segment = segment

        def forward(self, x: Tensor) -> Any:
            pooled = avg_pool1d(x, self.segment, self.segment, ceil_mode=True)
            pooled = pooled.unsqueeze(-1).expand(-1, -1, -1, self.segment).flatten(2)
            context = x.mean(-1, keepdim=True) + pooled[..., : x.shape[-1]]
            mask = self.linear2(relu(self.linear1(context))).sigmoid()
            return self.linear_local(x) * mask

    class DenseTdnnLayer(nn.Module):
        def __init__(self, inputs: int, growth: int, dilation: int) -> None:
            super().__init__()
            self.nonlinear1 = norm_relu(inputs)
            self.linear1 = nn.Conv1d(inputs, 4 * growth, 1, bias=False)
            self.nonlinear2 = norm_relu(4 * growth)
            self.cam_layer = ContextMask(4 * growth, growth, dilation)

        def forward(self, x: Tensor) -> Any:
            return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))

    class DenseBlock(nn.Module):
        def __init__(self, layers: int, inputs: int, growth: int, dilation: int) -> None:
            super().__init__()
            for i in range(layers):
                self.add_module(
                    f"tdnnd{i + 1}", DenseTdnnLayer(inputs + i * growth, growth, dilation)
                )

        def forward(self, x: Tensor) -> Any:
            for layer in self.children():
                x = cat([x, layer(x)], 1)
            return x

    class Transit(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.nonlinear = norm_relu(inputs)
            self.linear = nn.Conv1d(inputs, outputs, 1, bias=False)

        def forward(self, x: Tensor) -> Any:
            return self.linear(self.nonlinear(x))

    class StatisticsPool(nn.Module):
        def forward(self, x: Tensor) -> Any:
            mean = x.mean(-1)
            count = x.shape[-1]
            variance = ((x - mean.unsqueeze(-1)) ** 2).sum(-1) / (count - 1)
            return cat([mean, variance.sqrt()], -1)

    class Dense(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.linear = nn.Conv1d(inputs, outputs, 1, bias=False)
            self.nonlinear = nn.Sequential()
            self.nonlinear.add_module("batchnorm", nn.BatchNorm1d(outputs, affine=False))

        def forward(self, x: Tensor) -> Any:
            return self.nonlinear(self.linear(x.unsqueeze(-1)).squeeze(-1))

    class CamPlusPlus(nn.Module):
        def __init__(self, blocks: Sequence[tuple[int, int]], growth: int = 32) -> None:
            super().__init__()
            self.head = Head()
            channels = 128
            self.xvector = nn.Sequential()
            self.xvector.add_module("tdnn", Tdnn(32 * features // 8, channels))
            for i, (layers, dilation) in enumerate(blocks, 1):
                self.xvector.add_module(f"block{i}", DenseBlock(layers, channels, growth, dilation))
                channels += layers * growth
                self.xvector.add_module(f"transit{i}", Transit(channels, channels // 2))
                channels //= 2
            self.xvector.add_module("out_nonlinear", norm_relu(channels))
            self.xvector.add_module("stats", StatisticsPool())
            self.xvector.add_module("dense", Dense(2 * channels, embedding))

        def forward(self, x: Tensor) -> Any:
            return self.xvector(self.head(x.transpose(1, 2)))

    return CamPlusPlus([(12, 1), (24, 2), (16, 2)])
