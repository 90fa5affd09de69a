"""How long a run takes, by a few steps of networks that are then thrown away."""

import argparse
import math
import os
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch

from models.build import Training
from models.epoch_statistics import EpochStatistics
from models.fast.training_step import WARM_UP
from models.teacher_student import infer
from utils.console import say
from utils.devices import peak_memory_gib
from utils.methods import METHODS

ROUNDS, STEPS, LONGEST = 8, 2, 5.0  # rounds of so many steps, and the seconds after which no other
HOPELESS = 2.0  # times as slow: no other round
NAIVE_SHARE = 0.25  # of the epochs: until two after the tipping point, which nobody knows before
EPOCH_END, RUN_END = 0.1, 8.0  # seconds: checkpoint and log; plots, lists and page
WORTH_MORE_THREADS = 1.1  # times as fast: on a busy machine they wait for each other
Begin = Callable[[], tuple[Any, Any, Training]]  # generator, loaders, training: as a run begins


class Timing:
    """Steps and evaluation of a new training, timed on a number of CPU threads."""

    def __init__(self, begin: Begin, threads: int):
        self.threads, self.step_seconds, self.steps = threads, 0.0, 0
        torch.set_num_threads(threads)
        _, self.loaders, self.training = begin()
        self.loaders.train.strong = self.training.robust_phase.most > 0  # as in most epochs
        # The first steps, in which networks are compiled and graphs captured, are not counted.
        self.add(WARM_UP + 1 if self.training.step.graphed else 1)
        self.step_seconds, self.steps = 0.0, 0

    def add(self, count: int) -> None:
        """Time more steps, at most an epoch's; raises FloatingPointError as `EpochStatistics`."""
        torch.set_num_threads(self.threads)
        train = self.loaders.train
        step, _, _, robust_phase, _, averaged, _ = self.training
        step.pair.train()
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
        self.step_seconds += time.perf_counter() - start
        self.steps += statistics.steps

    def each(self) -> float:
        """Seconds of a step."""
        return self.step_seconds / self.steps

    def image_seconds(self) -> float:
        """Seconds of evaluating an image."""
        scored, pair = self.loaders.scored, self.training.step.pair
        count = min(scored.batch_size, len(scored.labels))
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            infer(pair, islice(scored, 1), count).cpu()
            seconds = (time.perf_counter() - start) / count
        return seconds

    def epoch_seconds(self, args: argparse.Namespace) -> tuple[float, float]:
        """Seconds of an epoch on average, evaluations included, and of scoring all images."""
        _, scored, val, sample, test = self.loaders
        image = self.image_seconds()
        scoring = image * len(scored.labels)
        passes = [(val, args.noisy_val_freq), (sample, args.noisy_val_freq)]
        passes += [(test, args.clean_test_freq)]
        evaluated = sum(
            len(each.labels) * math.ceil(args.n_epoch / every) for each, every in passes if each
        )
        naive = NAIVE_SHARE * scoring if METHODS[args.method].has_student else 0.0
        steps = self.each() * len(self.loaders.train) + EPOCH_END
        return steps + naive + (evaluated * image + scoring) / args.n_epoch, scoring


def measure_steps(args: argparse.Namespace, begin: Begin) -> dict[str, float]:
    """Time so many steps as `--measure_steps` asks for, and say what a run would take.

    Returns seconds of a step and of scoring all images, and the peak memory.
    """
    timing = Timing(begin, torch.get_num_threads())
    timing.add(args.measure_steps)
    memory = peak_memory_gib(timing.loaders.train.device)
    peak = "" if memory is None else f", {memory:.2f} GiB peak memory"
    say(f"{timing.each():.3f} s a step of {args.batch_size} images{peak}")
    scoring = say_time(args, timing, 0)
    return {"step_seconds": timing.each(), "scoring_seconds": scoring, "peak_memory_gib": memory}


def foretell(args: argparse.Namespace, begin: Begin, threads: int | None, done: int) -> None:
    """Choose the number of CPU threads and say about how long the run takes, all folds included.

    `threads`: those it began with, which it keeps; `done`: its epochs that are over, of all folds.
    A number of threads in the environment stays. `begin` seeds all random generators anew.
    """
    asked = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys()
    default = torch.get_num_threads()
    choices = {default} if asked else {threads} if threads else {1, default}
    try:
        timings = [Timing(begin, each) for each in sorted(choices)]
        for _ in range(ROUNDS):  # by turns: the machine's other work comes and goes
            for timing in timings:
                timing.add(STEPS)
            best = min(timing.each() for timing in timings)
            timings = [each for each in timings if each.each() <= HOPELESS * best]
            if min(timing.step_seconds for timing in timings) > LONGEST:
                break
    except FloatingPointError:  # the run itself says it, with a hint
        torch.set_num_threads(default if asked else threads or default)
        return
    chosen = next(each for each in timings if each.each() <= WORTH_MORE_THREADS * best)
    torch.set_num_threads(chosen.threads)
    say_time(args, chosen, done)


def say_time(args: argparse.Namespace, timing: Timing, done: int) -> float:
    """Say about how long the epochs take that are not done; returns the seconds of scoring."""
    seconds, scoring = timing.epoch_seconds(args)
    runs = max(1, args.folds)
    left = max(0, runs * args.n_epoch - done)
    of_folds = f" in {runs} folds" if runs > 1 else ""
    threads = f"{timing.threads} thread{'s' * (timing.threads > 1)}"
    how = f", on {threads}" if timing.loaders.train.device.type == "cpu" else ""
    words = f"{left} epochs of {len(timing.loaders.train)} steps{of_folds}"
    say(f"{words}: about {roughly(left * seconds + RUN_END)}{how}")
    return scoring


def roughly(seconds: float) -> str:
    """A time to two digits, as 40 s, 13 min or 2.1 h."""
    units = (3600, "h"), (60, "min"), (1, "s")
    size, unit = next(each for each in units if seconds >= 1.5 * each[0] or each[0] == 1)
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 9.95 or size == 1 else f"{value:.1f} {unit}"
