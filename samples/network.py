"""The detector `streetnet`: a small anchor-free network whose export has the layout of a YOLOv8 export.

Backbone of cross-stage-partial blocks (Wang et al. 2019, CSPNet), a path-aggregation neck (Liu et al. 2018, PANet)
and a decoupled head at strides 8, 16 and 32 (Ge et al. 2021, YOLOX) which predicts, for every cell, the distances
from the cell's centre to the four sides of the box (Tian et al. 2019, FCOS) and one sigmoid score a class.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["STRIDES", "Block", "StreetNet", "cell_centres"]

STRIDES = (8, 16, 32)


class Unit(nn.Module):
    """Convolution, batch normalisation, SiLU; `groups` equal to the channels makes it depthwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.silu(self.norm(self.conv(images)), inplace=True)


class Block(nn.Module):
    """Cross-stage-partial block: half of the channels pass by, half through one residual pair of 3x3 units."""

    def __init__(self, inputs: int, outputs: int, residual: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.bypass = Unit(inputs, half)
        self.enter = Unit(inputs, half)
        self.pair = nn.Sequential(Unit(half, half, 3), Unit(half, half, 3))
        self.join = Unit(3 * half, outputs)
        self.residual = residual

    def forward(self, features: Tensor) -> Tensor:
        entered = self.enter(features)
        deep = self.pair(entered)
        if self.residual:
            deep = deep + entered
        return cast(Tensor, self.join(torch.cat((self.bypass(features), entered, deep), 1)))


class Pool(nn.Module):
    """Spatial pyramid pooling (He et al. 2014) by repeated 5x5 maxima."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = Unit(channels, channels // 2)
        self.join = Unit(channels * 2, channels)

    def forward(self, features: Tensor) -> Tensor:
        levels = [self.enter(features)]
        for _ in range(3):
            levels.append(nn.functional.max_pool2d(levels[-1], 5, 1, 2))
        return cast(Tensor, self.join(torch.cat(levels, 1)))


class Head(nn.Module):
    """Decoupled head of one level: (B, 4, H, W) side distances in cells and (B, C, H, W) class logits."""

    def __init__(self, channels: int, classes: int, stride: int) -> None:
        super().__init__()
        self.sides = nn.Sequential(Unit(channels, 32, 3), Unit(32, 32, 3, groups=32), nn.Conv2d(32, 4, 1))
        self.scores = nn.Sequential(
            Unit(channels, channels, 3, groups=channels), Unit(channels, 32), nn.Conv2d(32, classes, 1)
        )
        # Starting values: about 5 objects among the cells of a 640-pixel picture, so that the first steps of the
        # training are not spent on learning that most cells are background (Lin et al. 2017, focal loss, 4.1).
        nn.init.constant_(self._last(self.scores), math.log(5 / classes / (640 / stride) ** 2))
        nn.init.constant_(self._last(self.sides), 1.0)

    @staticmethod
    def _last(layers: nn.Sequential) -> Tensor:
        return cast(Tensor, layers[-1].bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.softplus(self.sides(features)), self.scores(features)


class StreetNet(nn.Module):
    """Input (B, 3, H, W) float32 RGB in 0..1, H and W multiples of 32.

    In training mode it returns (boxes, logits): (B, N, 4) xyxy in input pixels and (B, N, classes).
    In evaluation mode it returns (B, 4 + classes, N): centre x, centre y, width, height, class scores in 0..1.
    N counts the cells of all levels, stride 8 first, row by row: 5040 for 384x640.
    """

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(Unit(3, 16, 3, 2), Unit(16, 32, 3, 2), Block(32, 32))
        self.down8 = nn.Sequential(Unit(32, 48, 3, 2), Block(48, 48))
        self.down16 = nn.Sequential(Unit(48, 96, 3, 2), Block(96, 96))
        self.down32 = nn.Sequential(Unit(96, 128, 3, 2), Block(128, 128), Pool(128))
        self.up16 = Block(128 + 96, 64, residual=False)
        self.up8 = Block(64 + 48, 48, residual=False)
        self.to16 = Unit(48, 64, 3, 2)
        self.out16 = Block(128, 64, residual=False)
        self.to32 = Unit(64, 96, 3, 2)
        self.out32 = Block(96 + 128, 96, residual=False)
        self.heads = nn.ModuleList(
            Head(channels, classes, stride) for channels, stride in zip((48, 64, 96), STRIDES, strict=True)
        )

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Feature maps at the three strides."""
        level8 = self.down8(self.stem(images))
        level16 = self.down16(level8)
        level32 = self.down32(level16)
        top16 = self.up16(torch.cat((_double(level32), level16), 1))
        out8 = self.up8(torch.cat((_double(top16), level8), 1))
        out16 = self.out16(torch.cat((self.to16(out8), top16), 1))
        return [out8, out16, self.out32(torch.cat((self.to32(out16), level32), 1))]

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        levels = [head(features) for head, features in zip(self.heads, self.pyramid(images), strict=True)]
        sides = torch.cat([sides.flatten(2) * stride for (sides, _), stride in zip(levels, STRIDES, strict=True)], 2)
        logits = torch.cat([scores.flatten(2) for _, scores in levels], 2)
        # As plain numbers the sizes make the centres a constant of the exported graph.
        centres = cell_centres(int(images.shape[2]), int(images.shape[3])).to(sides.device).T[None]
        low, high = centres - sides[:, :2], centres + sides[:, 2:]
        if self.training:
            return torch.cat((low, high), 1).transpose(1, 2), logits.transpose(1, 2)
        return torch.cat(((low + high) / 2, high - low, logits.sigmoid()), 1)


def _double(features: Tensor) -> Tensor:
    return nn.functional.interpolate(features, scale_factor=2.0, mode="nearest")


def cell_centres(height: int, width: int) -> Tensor:
    """Centres (N, 2) of all cells in input pixels, x and y, in the order of the network's output."""
    levels = []
    for stride in STRIDES:
        ys, xs = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        levels.append((torch.stack((xs, ys), -1).reshape(-1, 2).float() + 0.5) * stride)
    return torch.cat(levels)
