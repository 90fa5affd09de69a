"""A small network that learns CIFAR in a few epochs, after Keller Jordan's airbench.

Source: https://github.com/KellerJordan/cifar10-airbench (arXiv 2404.00498).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 2  # pixels, the side of the patches that are whitened
WHITENING_FLOOR = 5e-4  # added to the variance of a patch's component, which may have none
LOGIT_SCALE = 1 / 9
DOWNSAMPLE_FROM = 64  # pixels, the side of images that are halved


class CompactBlock(nn.Module):
    """Two convolutions that begin as the identity on their first channels; the size is halved."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight.data[: conv.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(F.max_pool2d(self.conv1(x), 2)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)), inplace=True)


class CompactNet(nn.Module):
    """Images [B, in_channels, H, W] -> logits [B, num_classes].

    A frozen convolution that whitens patches, see `whiten`; `blocks` blocks, the first of `width`
    channels, the others of 4 times as many; the largest value of each channel, a linear head.
    Images of 64 pixels and more are halved after the first convolution.
    """

    def __init__(self, num_classes: int, width: int, blocks: int, in_channels: int):
        super().__init__()
        filters = 2 * in_channels * PATCH**2
        self.whitening = nn.Conv2d(in_channels, filters, PATCH, bias=False)
        self.whitening.weight.requires_grad_(False)
        widths = [filters, width, *[4 * width] * (blocks - 1)]
        self.blocks = nn.Sequential(*(CompactBlock(*pair) for pair in pairwise(widths)))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def whiten(self, images: Tensor) -> None:
        """Set the first convolution by images [N, in_channels, H, W], normalized as in training."""
        self.whitening.weight.data.copy_(whitening_filters(images))

    def forward(self, images: Tensor) -> Tensor:
        out = F.relu(self.whitening(images), inplace=True)
        if images.shape[-1] >= DOWNSAMPLE_FROM:
            out = F.max_pool2d(out, 2)
        # The backward of max goes by index. That of amax compares values for equality that compiled
        # code computes again, in bfloat16 with other rounding: none is equal, and 0/0 is NaN.
        return LOGIT_SCALE * self.head(self.blocks(out).flatten(2).max(2).values)


def whitening_filters(images: Tensor) -> Tensor:
    """Filters [2 * K, C, 2, 2] whose outputs on the images [N, C, H, W] are uncorrelated.

    The K = 4 * C eigenvectors of the covariance of all 2x2 patches, each divided by the standard
    deviation along it so that its output has variance 1; then the same with the sign turned, for
    the activation that follows keeps one sign alone.
    """
    patches = F.unfold(images, PATCH).transpose(1, 2).flatten(0, 1)  # [N * places, K]
    variances, vectors = torch.linalg.eigh(patches.T.cov(correction=0))  # columns: eigenvectors
    filters = (vectors / (variances + WHITENING_FLOOR).sqrt()).T
    filters = filters.reshape(-1, images.shape[1], PATCH, PATCH)
    return torch.cat([filters, -filters])
