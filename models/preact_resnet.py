"""The pre-activation residual network of He et al. (arXiv 1603.05027) for small images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWNSAMPLE_FROM = 64  # pixels, the side of images that are halved


class Subsampling(nn.Conv2d):
    """A 1x1 convolution with a stride."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu and x.is_contiguous(memory_format=torch.channels_last):
            # The same, without a stride: in this format the backward pass of oneDNN's strided one
            # writes out of bounds (seen with batches of 25 and two threads, torch 2.11, 2.15).
            step = self.stride[0]
            return F.conv2d(x[..., ::step, ::step], self.weight)
        return super().forward(x)


class PreActBlock(nn.Module):
    """relu(bn) before each convolution; the shortcut branches off after the first of them."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = nn.Sequential()  # the identity
        if stride != 1 or in_channels != channels:
            self.shortcut.append(Subsampling(in_channels, channels, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(x), inplace=True)
        out = self.conv2(F.relu(self.bn2(self.conv1(h)), inplace=True))
        return out.add_(self.shortcut(h))  # the identity is of h, not of x, as the authors have it


class PreActResNet(nn.Module):
    """Images [B, in_channels, H, W] -> logits [B, num_classes].

    Four stages of `blocks` blocks, of widths 1, 2, 4 and 8 times `width`, strides 1, 2, 2, 2. The
    state dict has the keys and shapes of the authors' published checkpoints. Images of 64 pixels
    and more are halved after the first convolution.
    """

    def __init__(self, num_classes: int, width: int, blocks: int, in_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, blocks, stride=2)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(images)), inplace=True)
        if images.shape[-1] >= DOWNSAMPLE_FROM:
            out = F.max_pool2d(out, 2)
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        # A 32x32 image is 4x4 by now: this is the paper's 4x4 average pooling.
        return self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreActBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(PreActBlock(channels, channels, 1) for _ in range(blocks - 1)))


def PreResNet18(num_classes: int, width: int = 64) -> PreActResNet:
    """The paper's network for 32x32 color images: two blocks a stage, 11,171,274 parameters."""
    return PreActResNet(num_classes, width, blocks=2, in_channels=3)
