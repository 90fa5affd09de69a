"""Batches of images that live as bytes on the device: no image objects, no workers.

Flip, crop and normalisation are functions of a batch and a generator.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
Batch = tuple[Tensor, Tensor, Tensor]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image [B, channels, H, W] mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5  # [B]
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def random_crop(images: Tensor, generator: torch.Generator, padding: int, mode: str) -> Tensor:
    """A window of each image's own size at a random place of the image padded on all sides.

    images [B, channels, H, W]; `mode`: "reflect" continues the image by its mirror image without
    repeating the edge, "zeros" by zeros. Raises ValueError for another mode.
    """
    count, _, height, width = images.shape
    offsets = torch.randint(
        -padding, padding + 1, (2, count, 1), generator=generator, device=images.device
    )
    rows = offsets[0] + torch.arange(height, device=images.device)  # [B, H]
    columns = offsets[1] + torch.arange(width, device=images.device)  # [B, W]
    return crop(images, rows, columns, mode)


def crop(images: Tensor, rows: Tensor, columns: Tensor, mode: str) -> Tensor:
    """The pixels at `rows` [B, H] and `columns` [B, W], which may lie outside of the images."""
    height, width = images.shape[-2:]
    if mode == "reflect":
        rows = (height - 1) - ((height - 1) - rows.abs()).abs()
        columns = (width - 1) - ((width - 1) - columns.abs()).abs()
    elif mode != "zeros":
        raise ValueError(f"crop mode {mode!r}: choose 'reflect' or 'zeros'")
    inside_rows, inside_columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    window = images.permute(0, 2, 3, 1)[each, inside_rows[:, :, None], inside_columns[:, None]]
    if mode == "zeros":
        inside = (rows == inside_rows)[:, :, None] & (columns == inside_columns)[:, None]
        window = window * inside[..., None]
    # Contiguous: left in channels-last order, the batch would set the networks' memory format, and
    # oneDNN's 1x1 convolutions of stride 2 corrupt memory in that one at small widths.
    return window.permute(0, 3, 1, 2).contiguous()  # [B, channels, H, W]


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bytes [B, channels, H, W] as floats of the data set's mean 0 and standard deviation 1.

    `mean`, `std`: per channel, as shares of 255.
    """
    scale = 1 / (255 * std)
    return images * scale[:, None, None] - (mean / std)[:, None, None]


class Loader:
    """Yields `(images, labels, index)`: floats [B, channels, H, W], [B], positions [B].

    Every pass gives each image once, the last short batch included; in the order of the data, or
    newly shuffled each time. Randomness comes from `generator` alone.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        generator: torch.Generator,
        augment: Augmentation | None = None,
        shuffle: bool = False,
    ):
        """images: bytes [N, channels, H, W]; labels [N]; both moved to the generator's device."""
        self.device = generator.device
        self.images, self.labels = images.to(self.device), labels.to(self.device)
        self.mean = torch.tensor(mean, device=self.device)
        self.std = torch.tensor(std, device=self.device)
        self.batch_size, self.generator = batch_size, generator
        self.augment, self.shuffle = augment, shuffle

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.images)
        if self.shuffle:
            order = torch.randperm(count, generator=self.generator, device=self.device)
        else:
            order = torch.arange(count, device=self.device)
        for index in order.split(self.batch_size):
            images = self.images[index]
            if self.augment is not None:
                images = self.augment(images, self.generator)
            yield normalise(images, self.mean, self.std), self.labels[index], index
