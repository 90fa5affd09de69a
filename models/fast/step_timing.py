"""How long a training step and a whole run take, by a few steps: `--measure_steps`."""

import argparse
import math
import time
from itertools import islice
from typing import Any

from models.build import average_weights
from models.epoch_statistics import EpochStatistics
from models.fast.training_step import WARM_UP, TrainingStep
from models.guidance import Guidance
from models.teacher_student import infer
from utils.console import duration, say
from utils.devices import peak_memory_gib


def measure_steps(
    args: argparse.Namespace, step: TrainingStep, guidance: Guidance, loaders: Any
) -> dict[str, float]:
    """Time at most an epoch's steps and a batch of evaluation, and print what a run would take.

    The weights change as in training. Returns seconds of a step and of scoring all images, and the
    peak memory. Raises FloatingPointError for a loss that is not finite.
    """
    train, scored = loaders.train, loaders.scored
    averaged = average_weights(step.pair, args.ema_decay) if args.ema_decay else None
    step.pair.train()
    # The first steps, in which networks are compiled and graphs captured, are not counted.
    for count in (WARM_UP + 1 if step.graphed else 1, args.measure_steps):
        statistics = EpochStatistics(len(train.labels), len(train), train.device)
        start = time.perf_counter()
        for images, labels, index in islice(train, count):
            mix = guidance.mix(index, 0, 0)
            result = step(images, labels, *guidance.of(index, mix))
            statistics.add(result, index)
            guidance.add(result, index, mix)
            if averaged:
                averaged.update_parameters(step.pair)
        statistics.stats()  # waits for the device
        step_seconds = (time.perf_counter() - start) / statistics.steps
    evaluated = min(scored.batch_size, len(scored.labels))
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        infer(step.pair, islice(scored, 1), evaluated).cpu()
        image_seconds = (time.perf_counter() - start) / evaluated

    scoring, memory = len(scored.labels) * image_seconds, peak_memory_gib(train.device)
    evaluations = math.ceil(args.n_epoch / args.noisy_val_freq) * len(loaders.val.labels)
    if loaders.test:
        evaluations += math.ceil(args.n_epoch / args.clean_test_freq) * len(loaders.test.labels)
    least = args.n_epoch * len(train) * step_seconds + evaluations * image_seconds + scoring
    say(f"{step_seconds:.3f} s a step of {args.batch_size} images, {memory:.2f} GiB peak memory")
    words = f"{args.n_epoch} epochs of {len(train)} steps: about {duration(least)}"
    if args.method != "ce":
        words += f" to {duration(least + args.n_epoch * scoring)}; the images are scored, "
        words += f"{scoring:.1f} s, in each epoch up to two after the tipping point"
    say(words)
    return {"step_seconds": step_seconds, "scoring_seconds": scoring, "peak_memory_gib": memory}
