"""How long a training step, the evaluation of an image and a whole run take, by a few of them."""

import argparse
import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from models.build import Training
from models.epoch_statistics import EpochStatistics
from models.fast.training_step import WARM_UP
from models.teacher_student import infer
from utils.console import say
from utils.devices import peak_memory_gib
from utils.sweep.run_time import RunTime


class Loader(Protocol):
    """Batches (images, labels, index), and all labels [N] on the batches' device."""

    labels: Tensor
    batch_size: int
    device: torch.device

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]: ...


class Loaders(Protocol):
    """Those that are timed."""

    train: Loader
    scored: Loader
    val: Loader
    test: Loader | None


def time_steps(training: Training, loaders: Loaders, steps: int) -> dict[str, Any]:
    """Mean seconds of a training step, over at most one epoch, and of one image's evaluation.

    The weights change as in training. The first steps, in which networks are compiled and graphs
    captured, are not counted. Raises FloatingPointError for a loss that is not finite.
    """
    step, _, _, robust_phase, _, averaged = training
    train = loaders.train
    device, images = train.labels.device, len(train.labels)
    step.pair.train()
    for count in (WARM_UP + 1 if step.graphed else 1, steps):  # first, warm up
        start = time.perf_counter()
        statistics = EpochStatistics(images, len(train), device)
        for batch, labels, index in islice(train, count):
            mix = robust_phase.mix(index, 0, 0)
            result = step(mix.of(batch), labels, *robust_phase.inputs(index, mix))
            statistics.update(result, index)
            robust_phase.update(result, index, mix)
            if averaged:
                averaged.update()
        statistics.stats()  # waits for the device
    step_seconds = (time.perf_counter() - start) / min(steps, len(train))

    evaluated = min(loaders.scored.batch_size, len(loaders.scored.labels))
    for _ in range(2):  # first, warm up
        start = time.perf_counter()
        infer(step.pair, islice(loaders.scored, 1), evaluated).cpu()
    image_seconds = (time.perf_counter() - start) / evaluated
    return {"step_seconds": step_seconds, "image_seconds": image_seconds}


def estimate(args: argparse.Namespace, training: Training, loaders: Loaders) -> dict[str, Any]:
    """Time a few steps and print what the whole run would take; returns the measurements."""
    start, began, steps = time.process_time(), time.perf_counter(), len(loaders.train)
    one, look = time_steps(training, loaders, args.measure_steps).values()
    warm_up = time.perf_counter() - began - min(args.measure_steps, steps) * one
    evaluated = math.ceil(args.n_epoch / args.noisy_val_freq) * len(loaders.val.labels)
    if loaders.test:
        evaluated += math.ceil(args.n_epoch / args.clean_test_freq) * len(loaders.test.labels)
    epoch = steps * one + evaluated / args.n_epoch * look
    scoring = len(loaders.scored.labels) * look
    run = RunTime(start, warm_up, epoch, scoring)
    device, memory = loaders.train.device, peak_memory_gib(loaders.train.device)
    words = run.words(args.method, args.n_epoch)
    say(f"{one:.3f} s a step of {args.batch_size} images on {device}, peak memory {memory:.2f} GiB")
    say(f"one run of {args.n_epoch} epochs of {steps} steps would take {words}")
    say(run.line())  # last: the sweep reads it
    return {"step_seconds": one, "scoring_seconds": scoring, "peak_memory_gib": memory}
