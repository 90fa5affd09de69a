"""Batches from images kept as bytes on the device: no image objects, no worker processes."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from data.augmentation import OUTSIDE, Augmentation, Window, whole
from data.strong_views import strong_views

Batch = tuple[Tensor, Tensor, Tensor]


class PixelTable:
    """Images as one table of pixels [N * H * W + 1, channels], the last one black.

    All pixels of a batch are taken at once, whatever its augmentation.
    """

    def __init__(self, images: Tensor, *, black: bool = True):
        """images: bytes [N, channels, H, W]; not copied where these are mapped as [N, H, W, …].

        Without `black` no augmentation may look outside of an image, and nothing is copied where
        the channels are the last in memory.
        """
        self.count, channels, self.height, self.width = images.shape
        pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
        self.pixels = torch.cat([pixels, images.new_zeros(1, channels)]) if black else pixels

    def images(self, index: Tensor) -> Tensor:
        """Images at the positions `index` [B], unchanged: [B, H, W, channels]."""
        pixels = self.pixels[: self.count * self.height * self.width]
        return pixels.view(self.count, self.height, self.width, -1).index_select(0, index)

    def windows(self, index: Tensor, window: Window) -> Tensor:
        """The window of each image at the positions `index` [B]: [B, H, W, channels]."""
        black = len(self.pixels) - 1
        rows, columns = window
        starts = (index[:, None] * self.height + rows) * self.width  # [B, H]
        starts = torch.where(rows == OUTSIDE, black, starts)
        columns = torch.where(columns == OUTSIDE, black, columns)
        places = (starts[:, :, None] + columns[:, None]).clamp_(max=black)  # [B, H, W]
        return self.pixels.index_select(0, places.flatten()).view(*places.shape, -1)


def normalize(
    images: Tensor,
    mean: Tensor,
    std: Tensor,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Bytes [B, channels, H, W] as floats with mean 0 and standard deviation 1 per channel.

    `mean`, `std` [channels]: those of the data set, as fractions of 255.
    """
    scale, shift = 1 / (255 * std), mean / std
    values = images.contiguous(memory_format=memory_format).float()
    return values.mul_(scale[:, None, None]).sub_(shift[:, None, None])


class Loader:
    """Yields `(images, labels, index)`: floats [B, channels, H, W], [B], positions [B].

    Where it is `strong`, images are [2B, …], the second half strong views of the first.

    Every pass gives each of N images once, the last short batch included, in data order or newly
    shuffled; positions are those among the N. Randomness comes from `generator` alone.
    """

    def __init__(
        self,
        images: Tensor | PixelTable,
        labels: Tensor,
        places: Tensor | None = None,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        generator: torch.Generator,
        augment: Augmentation | None = None,
        shuffle: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
        on_host: bool = False,
        before_batch: Callable[[], object] = lambda: None,
    ):
        """images: bytes [N, channels, H, W], or the table of them that loaders share, of which this
        one has those at `places` [N]; labels [N]; batches are on the generator's device.

        The images are moved there at once, or, `on_host`, batch by batch, one ahead of its use.
        `before_batch` is called before anything is drawn for a batch; what it raises ends the pass.
        """
        self.device, self.on_host = generator.device, on_host
        self.table = images if isinstance(images, PixelTable) else PixelTable(images)
        if not on_host:
            self.table.pixels = self.table.pixels.to(self.device)
        self.labels = labels.to(self.device)
        places = torch.arange(len(labels)) if places is None else places
        self.places = places.to(self.table.pixels.device)
        self.fill = [255 * each for each in mean]
        self.mean = torch.tensor(mean, device=self.device)
        self.std = torch.tensor(std, device=self.device)
        self.batch_size, self.generator = batch_size, generator
        self.augment, self.shuffle, self.memory_format = augment, shuffle, memory_format
        self.augmented = True  # False: the next pass gives the images unchanged
        self.strong = False  # True: it gives strong views of the images, too
        self.before_batch = before_batch

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.after(0)

    def after(self, count: int) -> Iterator[Batch]:
        """A pass resumed after `count` batches, whose random numbers are drawn all the same."""
        if self.shuffle:
            size = len(self.labels)
            order = torch.randperm(size, generator=self.generator, device=self.device)
        else:
            order = torch.arange(len(self.labels), device=self.device)
        strong = self.strong and self._draw_seed()
        batches = order.split(self.batch_size)
        for index in batches[:count]:
            self._window(len(index))
        batches = batches[count:]
        tables = (
            self._moved_ahead(order, count)
            if self.on_host
            else ((self.table, self.places[index]) for index in batches)
        )
        for number, (index, (table, place)) in enumerate(zip(batches, tables, strict=True), count):
            self.before_batch()
            window = self._window(len(index))
            images = table.windows(place, window) if window else table.images(place)
            images = images.permute(0, 3, 1, 2)  # [B, channels, H, W]
            if self.strong:
                images = torch.cat([images, strong_views(images, self.fill, strong + number)])
            images = normalize(images, self.mean, self.std, self.memory_format)
            yield images, self.labels[index], index

    def first(self, count: int) -> Tensor:
        """The first images in data order, as they are evaluated: [count or all, C, H, W]."""
        images = self.table.images(self.places[:count]).to(self.device).permute(0, 3, 1, 2)
        return normalize(images, self.mean, self.std)

    def _draw_seed(self) -> int:
        """Of the strong views of a pass, a number for each batch counted from it."""
        return int(torch.randint(2**62, (), generator=self.generator, device=self.device))

    def _window(self, count: int) -> Window | None:
        """The augmentation of the next `count` images; None: unchanged."""
        if self.augment is None or not self.augmented:
            return None
        return self.augment(
            whole(count, self.table.height, self.table.width, self.device), self.generator
        )

    def _moved_ahead(self, order: Tensor, count: int) -> Iterator[tuple[PixelTable, Tensor]]:
        """After `count` batches: a table of a batch's images on the device, its positions there."""
        batches = order.cpu().split(self.batch_size)[count:]
        images = (self.table.images(self.places[index]) for index in batches)
        return one_ahead(images, self.device)


def one_ahead(
    batches: Iterable[Tensor], device: torch.device
) -> Iterator[tuple[PixelTable, Tensor]]:
    """Each batch of images [B, H, W, channels] on the device, the next one already being copied."""
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(images: Tensor | None) -> Tensor | None:
        if images is None or copies is None:
            return images
        with torch.cuda.stream(copies):
            return images.pin_memory().to(device, non_blocking=True)

    batches = iter(batches)
    coming = start(next(batches, None))
    while coming is not None:
        images = coming
        if copies is not None:
            current = torch.cuda.current_stream(device)
            current.wait_stream(copies)
            images.record_stream(current)
        coming = start(next(batches, None))
        table = PixelTable(images.permute(0, 3, 1, 2))
        yield table, torch.arange(len(images), device=device)
