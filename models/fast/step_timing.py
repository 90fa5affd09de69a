"""How long a training step and a whole run take, by a few steps: `--measure_steps`."""

import argparse
import math
import time
from itertools import islice
from typing import Any

from models.build import Training
from models.epoch_statistics import EpochStatistics
from models.fast.training_step import WARM_UP
from models.teacher_student import infer
from utils.console import duration, say
from utils.devices import peak_memory_gib
from utils.methods import METHODS


def measure_steps(args: argparse.Namespace, training: Training, loaders: Any) -> dict[str, float]:
    """Time at most an epoch's steps and a batch of evaluation, and print what a run would take.

    The weights change as in training. Returns seconds of a step and of scoring all images, and the
    peak memory. Raises FloatingPointError for a loss that is not finite.
    """
    train, scored = loaders.train, loaders.scored
    step, _, _, robust_phase, _, averaged = training
    step.pair.train()
    # The first steps, in which networks are compiled and graphs captured, are not counted.
    for count in (WARM_UP + 1 if step.graphed else 1, args.measure_steps):
        statistics = EpochStatistics(len(train.labels), len(train), train.device)
        start = time.perf_counter()
        for images, labels, index in islice(train, count):
            mix = robust_phase.mix(index, 0, 0)
            result = step(images, labels, *robust_phase.inputs(index, mix))
            statistics.update(result, index)
            robust_phase.update(result, index, mix)
            if averaged:
                averaged.update()
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
    peak = "" if memory is None else f", {memory:.2f} GiB peak memory"
    say(f"{step_seconds:.3f} s a step of {args.batch_size} images{peak}")
    words = f"{args.n_epoch} epochs of {len(train)} steps: about {duration(least)}"
    if METHODS[args.method].has_student:
        words += f" to {duration(least + args.n_epoch * scoring)}; the images are scored, "
        words += f"{scoring:.1f} s, in each epoch up to two after the tipping point"
    say(words)
    return {"step_seconds": step_seconds, "scoring_seconds": scoring, "peak_memory_gib": memory}
