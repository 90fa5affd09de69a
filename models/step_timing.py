"""How long a training step and the evaluation of an image take, measured on a few of them."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from torch import Tensor

from models.epoch_statistics import EpochStatistics
from models.guidance import Guidance
from models.teacher_student import infer
from models.training_step import WARM_UP, TrainingStep


class Loader(Protocol):
    """Batches (images, labels, index), and all labels [N] on the batches' device."""

    labels: Tensor
    batch_size: int

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]: ...


class Loaders(Protocol):
    """Those that are timed."""

    train: Loader
    scored: Loader


def time_steps(
    step: TrainingStep, guidance: Guidance, loaders: Loaders, steps: int
) -> dict[str, Any]:
    """Mean seconds of a training step, over at most one epoch, and of one image's evaluation.

    The weights change as in training. The first steps, in which networks are compiled and graphs
    captured, are not counted. Raises FloatingPointError for a loss that is not finite.
    """
    train = loaders.train
    device, images = train.labels.device, len(train.labels)
    step.pair.train()
    for count in (WARM_UP + 1 if step.graphed else 1, steps):  # first, warm up
        start = time.perf_counter()
        statistics = EpochStatistics(images, len(train), device)
        for batch, labels, index in islice(train, count):
            mix = guidance.mix(index, 0, 0)
            result = step(batch, labels, *guidance.of(index, mix))
            statistics.add(result, index)
            guidance.add(result, index, mix)
        statistics.stats()  # waits for the device
    step_seconds = (time.perf_counter() - start) / min(steps, len(train))

    evaluated = min(loaders.scored.batch_size, len(loaders.scored.labels))
    for _ in range(2):  # first, warm up
        start = time.perf_counter()
        infer(step.pair, islice(loaders.scored, 1), evaluated).cpu()
    image_seconds = (time.perf_counter() - start) / evaluated
    return {"step_seconds": step_seconds, "image_seconds": image_seconds}
