"""Train teacher and student on wrong labels by Blind Knowledge Distillation (arXiv 2211.11355).

Digits, a sixth of the labels wrong (rand1): 98.87 ± 0.12 % clean test accuracy over 3 seeds, plain
cross-entropy 86.60 ± 1.25 %; 41 s a run, two at a time, on two slow cores. For CIFAR-10N:
    python blind_knowledge_dist_training.py --dataset cifar10 --noise_type aggre --seed 42
"""

import argparse
import sys
import time
from collections import deque
from collections.abc import Container, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from utils.options import parse_options, run_script, training_parser

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    options = parse_options(training_parser())

import numpy as np
import torch
from torch import Tensor

from data.datasets import (
    Loaders,
    check_limit,
    choose_positions,
    given_labels,
    load_images,
    make_loaders,
)
from data.loader import Batch, Loader
from models.epoch_sums import EpochStats, EpochSums
from models.losses import baseline_loss, pair_loss
from models.noise_split import (
    EpochRecord,
    Scores,
    TippingPointMonitor,
    label_distrust,
    otsu,
    score,
    trust_groups,
)
from models.teacher_student import TeacherStudent, build_baseline, build_pair, infer, infer_logits
from models.training_step import WARM_UP, TrainingStep
from utils import runs
from utils.checkpoint import Checkpoint, OptimizerPart
from utils.devices import pick_device, pick_precision
from utils.epoch_log import EpochLog
from utils.files import remove_partial_files, write_json, write_tensors
from utils.interruption import Interrupted, Interruption
from utils.lock import locked
from utils.metrics import accuracy
from utils.plots import PICTURES, outdated, write_pictures
from utils.progress import ProgressBars, say
from utils.seeding import Randomness, be_deterministic, seed_everything
from utils.tracker import Tracker
from utils.vanishing import VanishingWatch

RECENT = 10  # epochs from which the time left is estimated
NO_TIPPING_POINT = 3  # exit status: all is written, but the detection result is a guess


def train_epoch(
    step: TrainingStep, batches: Iterable[Batch], alpha: Tensor, sums: EpochSums
) -> EpochStats:
    """One pass over the batches; `alpha` [N]: how little each training image's label is trusted.

    `sums`: of the batches before these, where the pass was interrupted. Raises FloatingPointError
    where the loss or the weights are no longer finite.
    """
    step.pair.train()
    for images, labels, index in batches:
        sums.add(step(images, labels, alpha[index]), index)
    step.check_weights()
    return sums.stats()


def predict(pair: TeacherStudent, loader: Loader) -> Tensor:
    """The pair's predictions [N] of a loader's images, in the order of the data."""
    return infer(pair, loader, len(loader.labels)).argmax(1)


def score_images(pair: TeacherStudent, loader: Loader) -> Scores:
    """What the pair as it is now says of a loader's images and their labels."""
    return score(*infer_logits(pair, loader, len(loader.labels)), loader.labels)


def write_split(
    record: EpochRecord, guess: bool, detection: runs.DetectionWriter
) -> dict[str, Any]:
    """Split the images as they were scored in that epoch; tell, write and return what came out."""
    split = otsu(record.scores.agreement)
    group = trust_groups(record.scores.agreement, split)  # [scored images]
    arrays = to_arrays(group=group, **record.scores._asdict())
    every, wrong = arrays["group"], detection.labels != detection.clean_labels
    sizes, wrongs = (np.bincount(g, minlength=5)[1:] for g in (every, every[wrong]))
    figures = {"split_epoch": record.epoch, "guess": guess} | (split._asdict() if split else {})
    noise = {
        "group_sizes": sizes.tolist(),
        "group_wrong": wrongs.tolist(),
        "estimated_noise_rate": float(sizes[2:].sum() / sizes.sum()),
        "true_noise_rate": float(wrong.mean()),
    }
    if split:
        say(
            f"split at {split.low_mean:.3f}, {split.threshold:.3f}, {split.high_mean:.3f}: groups "
            f"1 (most trusted) to 4 (judged wrong) have {noise['group_sizes']} images"
        )
    else:
        say("all scores fall into one bin: there is nothing to split, nothing is flagged")
    say(
        f"{sizes[3]} labels are judged wrong, {wrongs[3]} of them rightly; noise rate "
        f"{noise['estimated_noise_rate']:.1%} by the share below the threshold, "
        f"{noise['true_noise_rate']:.1%} by the true labels"
    )
    detection.write(every == 4, **arrays, **figures)
    return {**figures, **noise}


def to_arrays(**tensors: Tensor) -> dict[str, np.ndarray]:
    """The same on the host, for a file."""
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def save_networks(pair: TeacherStudent, folder: Path, prefix: str, epoch: int) -> None:
    """Each trained network in a file of its own, in the authors' format."""
    for name, network in pair.trained_networks().items():
        content = {"state_dict": network.state_dict(), "epoch": epoch}
        write_tensors(folder / f"{prefix}{name}.pth.tar", content)


class Look(NamedTuple):
    """What there is to see of an epoch."""

    stats: EpochStats
    scores: Scores | None  # of the scored images, while the tipping point is looked for
    val: Tensor | None  # predictions for the noisy validation and the clean test, where due
    test: Tensor | None


class Training:
    """The algorithm, and all that makes up its state."""

    def __init__(
        self,
        args: argparse.Namespace,
        step: TrainingStep,
        loaders: Loaders,
        detection: runs.DetectionWriter,
        wrong: Tensor,
        class_names: list[str],
        randomness: Randomness,
    ):
        """`wrong` [training images]: which labels are not the true ones; only reported."""
        self.args, self.step, self.pair = args, step, step.pair
        self.loaders, self.detection, self.wrong = loaders, detection, wrong
        self.blind, self.folder = args.method == "bkd", detection.folder
        self.class_names, self.randomness = class_names, randomness
        images, device = len(wrong), wrong.device
        self.alpha = torch.zeros(images, device=device)  # how little a label is trusted: one-hot
        self.epoch = 0  # the next one
        self.best_val, self.seconds = -1.0, 0.0
        self.record: dict[str, Any] = {"tipping_point": None, "best_val_epoch": None}
        self.sums = EpochSums(images, len(loaders.train), device)
        self.schedule = torch.optim.lr_scheduler.StepLR(step.optimizer, args.lr_step, args.lr_gamma)
        self.monitor, self.log = TippingPointMonitor(), EpochLog(self.folder)
        self.watch, self.tracker = VanishingWatch(), Tracker(self.folder, args.tensorboard)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands between two epochs, its parts aside."""
        names = ("alpha", "epoch", "best_val", "seconds", "record")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; raises ValueError for another number of images."""
        if state["alpha"].shape != self.alpha.shape:
            raise ValueError(f"alpha has shape {tuple(state['alpha'].shape)}")
        self.alpha = state["alpha"].to(self.alpha)
        self.epoch, self.record = int(state["epoch"]), dict(state["record"])
        self.best_val, self.seconds = float(state["best_val"]), float(state["seconds"])

    def parts(self) -> dict[str, Any]:
        """All that goes into a checkpoint, by name."""
        names = ("sums", "schedule", "monitor", "log", "watch", "randomness")
        parts = {name: getattr(self, name) for name in names}
        optimizer = OptimizerPart(self.step.optimizer)
        return {"networks": self.pair, "optimizer": optimizer, "training": self, **parts}

    def run(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """From where it stands to the last epoch; returns the run's record.

        Raises Interrupted with the checkpoint written, and ValueError for a loss that is not
        finite.
        """
        bars = ProgressBars(self.args.n_epoch, self.epoch, self.args.print_freq, self.args.quiet)
        try:
            self.epochs(checkpoint, bars)
        except FloatingPointError as error:
            raise ValueError(
                f"epoch {self.epoch}, {error}; {checkpoint.describe()}; begin anew with a smaller "
                "--lr and --restart"
            ) from error
        finally:
            bars.close()
        accuracies = ("noisy_val_accuracy", "clean_test_accuracy")
        last = {name: self.log.rows[-1][name] for name in accuracies}
        return self.record | {"epochs": self.args.n_epoch, **last}

    def epochs(self, checkpoint: Checkpoint, bars: ProgressBars) -> None:
        """The loop over the epochs, and what comes after it."""
        before, start = self.seconds, time.perf_counter()
        took: deque[float] = deque(maxlen=RECENT)
        try:
            while self.epoch < self.args.n_epoch:
                begun = time.perf_counter()
                look = self.look(bars)
                took.append(time.perf_counter() - begun)
                self.report(look, took)
                self.settle(look)
                bars.epoch_done()
                self.seconds = before + time.perf_counter() - start
                if self.epoch % self.args.checkpoint_freq == 0 and self.epoch < self.args.n_epoch:
                    checkpoint.save()
            self.finish()
        except Interrupted:
            self.seconds = before + time.perf_counter() - start
            checkpoint.save()
            raise
        self.seconds = before + time.perf_counter() - start
        if self.args.keep_checkpoint:
            checkpoint.save()

    def look(self, bars: ProgressBars) -> Look:
        """Train an epoch and measure what is due. Before any batch it may be interrupted.

        Until it returns only the weights, their velocities and `sums` have changed.
        """
        args, loaders, done = self.args, self.loaders, self.sums.steps
        batches = bars.batches(loaders.train.after(done), self.epoch, done, len(loaders.train))
        stats = train_epoch(self.step, batches, self.alpha, self.sums)
        scores = val = test = None
        if self.blind and self.record["tipping_point"] is None:
            scores = score_images(self.pair, loaders.scored)
        count = self.epoch + 1
        if count == args.n_epoch or count % args.noisy_val_freq == 0:
            val = predict(self.pair, loaders.val)
        if count == args.n_epoch or count % args.clean_test_freq == 0:
            test = predict(self.pair, loaders.test)
        return Look(stats, scores, val, test)

    def settle(self, look: Look) -> None:
        """Draw the conclusions of an epoch, which is over with that."""
        args = self.args
        if look.scores:
            self.monitor.update(look.stats.confidence, look.stats.agreement, look.scores)
            tipped = self.monitor.found()
            if tipped:
                say(f"tipping point: epoch {tipped.epoch}; the robust phase begins")
                alphas = (args.alpha1, args.alpha2, args.alpha3, args.alpha4)
                self.alpha = label_distrust(tipped.train_agreement, alphas).to(self.alpha)
                self.record["tipping_point"] = tipped.epoch
                self.record |= write_split(tipped, False, self.detection)
                self.draw(PICTURES)
        val = self.measured(look.val, self.loaders.val)
        if val is not None and val > self.best_val:
            self.best_val, self.record["best_val_epoch"] = val, self.epoch
            save_networks(self.pair, self.folder, "best_", self.epoch)
        self.schedule.step()
        self.epoch += 1
        self.sums.reset()
        self.randomness.mark()

    def report(self, look: Look, seconds: Sequence[float]) -> None:
        """A line and a row; `seconds`: what the last few epochs took, this one the last."""
        stats, names = look.stats, self.class_names
        agreed = stats.prediction == self.loaders.train.labels  # [N]
        wrong = (agreed & self.wrong).sum().item() / max(agreed.sum().item(), 1)
        seen = {"training": stats.prediction, "validation": look.val, "test": look.test}
        absent, new = self.watch.update(
            {name: each.unique().tolist() for name, each in seen.items() if each is not None}
        )
        phase = "robust" if self.record["tipping_point"] is not None else "naive"
        self.log.add(
            seconds=seconds[-1],
            left=sum(seconds) / len(seconds) * (self.args.n_epoch - self.epoch - 1),
            epoch=self.epoch,
            phase=phase if self.blind else "ce",
            lr=self.schedule.get_last_lr()[0],
            loss=stats.loss,
            naive_loss=stats.naive_loss,
            compensation_loss=stats.compensation_loss if self.blind else None,
            student_confidence=stats.confidence if self.blind else None,
            noisy_val_accuracy=self.measured(look.val, self.loaders.val),
            clean_test_accuracy=self.measured(look.test, self.loaders.test),
            agreed_wrong=100 * wrong,
            vanished_classes=" ".join(map(str, absent)),
        )
        self.tracker.scalars(self.log.rows[-1])
        for each, images in new.items():
            say(
                f"warning: epoch {self.epoch}: not one of the {images} images is predicted to be "
                f"of class {names[each]!r} any more"
            )

    def draw(self, names: Container[str]) -> None:
        """Pictures of the run so far; that one cannot be drawn is no reason to end the run."""
        if self.args.no_pictures:
            return
        try:
            self.tracker.pictures(write_pictures(self.folder, say, names), self.epoch)
        except (ValueError, OSError) as error:
            say(f"warning: not all pictures are drawn: {error}")

    @staticmethod
    def measured(predictions: Tensor | None, loader: Loader) -> float | None:
        """Accuracy in percent, where there are predictions."""
        return None if predictions is None else accuracy(predictions, loader.labels)

    def finish(self) -> None:
        """Write the last epoch's networks, and the detection result where there is none yet."""
        if not self.blind:
            arrays = to_arrays(**score_images(self.pair, self.loaders.scored)._asdict())
            self.detection.write(arrays["prediction"] != self.detection.labels, **arrays)
        elif self.record["tipping_point"] is None:
            guess = self.monitor.most_confident
            say(
                f"no tipping point in {self.args.n_epoch} epochs: the detection result is a guess, "
                f"made at epoch {guess.epoch}, where the student was most confident"
            )
            self.record |= write_split(guess, True, self.detection)
        save_networks(self.pair, self.folder, "", self.args.n_epoch - 1)


def measure(args: argparse.Namespace, step: TrainingStep, loaders: Loaders) -> dict[str, Any]:
    """Time a few steps and one scoring batch, and print what the whole run would take."""
    device = loaders.train.device
    alpha = torch.zeros(len(loaders.train.labels), device=device)
    for steps in (WARM_UP + 1 if step.graphed else 1, args.measure_steps):  # first, warm up
        start = time.perf_counter()
        sums = EpochSums(len(alpha), len(loaders.train), device)
        train_epoch(step, islice(loaders.train, steps), alpha, sums)
    seconds = (time.perf_counter() - start) / min(args.measure_steps, len(loaders.train))
    start = time.perf_counter()
    few = min(loaders.scored.batch_size, len(loaders.scored.labels))
    infer(step.pair, islice(loaders.scored, 1), few).cpu()
    look = (time.perf_counter() - start) / few  # at one image
    training = args.n_epoch * len(loaders.train) * seconds
    evaluation = look * (
        args.n_epoch // args.noisy_val_freq * len(loaders.val.labels)
        + args.n_epoch // args.clean_test_freq * len(loaders.test.labels)
    )
    scoring, memory = look * len(loaders.scored.labels), runs.peak_memory_gib(device)
    print(
        f"{seconds:.3f} s a step of {args.batch_size} images on {device}, peak memory {memory:.2f} "
        f"GiB\none run of {args.n_epoch} epochs of {len(loaders.train)} steps would take about "
        f"{(training + evaluation) / 3600:.2f} hours, and {scoring:.0f} s more for each epoch up "
        "to two after the tipping point"
    )
    return {"step_seconds": seconds, "scoring_seconds": scoring, "peak_memory_gib": memory}


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train one pair, or the baseline, and write its run folder; returns training.json."""
    start = time.perf_counter()
    device = pick_device(args.device)
    if args.deterministic:
        be_deterministic()
    precision = pick_precision(args.precision, device)
    compiled = args.compile == "on" or (args.compile == "auto" and device.type == "cuda")
    folder = runs.run_folder(args)
    description = runs.describe(args, device, precision, compiled)
    if not args.measure_steps and not args.restart:
        finished = runs.finished_run(folder, description)
        if finished:
            say(f"{folder}: this run is finished")
            return finished

    generator = seed_everything(args.seed, device)
    images = load_images(args.dataset, args.data_dir)
    clean_labels = images.train.clean_labels
    labels = given_labels(
        args.dataset, args.noise_type, clean_labels, args.data_dir, args.noise_path, args.seed
    )
    positions = choose_positions(len(labels), args.val_ratio, args.seed, args.limit_train)
    check_size(args, labels[positions.train], images.class_names)
    blind, plain = args.method == "bkd", precision == "fp32" and args.compile == "off"
    interruption = Interruption()
    loaders = make_loaders(
        images,
        labels,
        positions,
        args.batch_size,
        generator,
        augment_scored=blind,
        memory_format=torch.contiguous_format if plain else torch.channels_last,
        before_batch=interruption.check,
    )
    step = make_step(args, len(images.class_names), device, precision, plain, compiled)
    if args.measure_steps:
        return measure(args, step, loaders)

    detection = runs.DetectionWriter(
        folder,
        positions.scored,
        labels[positions.scored].numpy(),
        clean_labels[positions.scored].numpy(),
        images.class_names,
        images.train.images.numpy(),
    )
    wrong = (labels != clean_labels)[positions.train].to(device)
    if args.restart:
        moved = runs.move_aside(folder)
        if moved:
            say(f"{folder}: moved to {moved}")
    runs.make_folder(folder)
    with locked(folder), interruption:
        remove_partial_files(folder)
        finished = runs.finished_run(folder, description)  # by another process meanwhile
        if finished:
            say(f"{folder}: this run is finished")
            return finished
        training = Training(
            args, step, loaders, detection, wrong, images.class_names, Randomness(generator)
        )
        checkpoint = Checkpoint(
            folder / "checkpoint.pt",
            runs.identity(description, device.type),
            training.parts(),
            description["versions"],
        )
        others = {}
        if checkpoint.path.exists():
            others = checkpoint.load()
        else:
            write_json(folder / "args.json", description)
        manner = ", compiled" if compiled else ", plain" if plain else ""
        say(f"{folder}: {len(wrong)} training images on {device}, {precision}{manner}")
        if others:
            say(f"begun with other versions ({others}): the rest may differ in the last bits")
        if training.epoch or training.sums.steps:
            say(f"going on from epoch {training.epoch}, step {training.sums.steps}")
        training.seconds += time.perf_counter() - start
        try:
            record = training.run(checkpoint)
        except Interrupted as interrupted:
            again = "the same command without --restart" if args.restart else "the same command"
            say(
                f"{interrupted} in epoch {training.epoch} after {training.sums.steps} of "
                f"{len(loaders.train)} steps; {again} goes on from there"
            )
            sys.exit(interrupted.status)
        write_json(folder / "timing.json", {"wall_seconds": training.seconds})
        training.draw(outdated(folder))
        write_json(folder / "training.json", record)
        if not args.keep_checkpoint:
            checkpoint.remove()
    return record


def check_size(args: argparse.Namespace, labels: Tensor, class_names: list[str]) -> None:
    """Raises ValueError, naming the option, where the given labels [N] cannot be trained on."""
    if args.limit_train:
        check_limit(args.limit_train, labels, args.batch_size, class_names)
    if args.dataset == "digits" and len(labels) % args.batch_size == 1:
        raise ValueError(
            f"--batch_size {args.batch_size}: leaves a last batch of one of the {len(labels)} "
            "training images, too few for batch norm on 8x8 images; choose another, or another "
            "--limit_train"
        )


def make_step(
    args: argparse.Namespace,
    num_classes: int,
    device: torch.device,
    precision: str,
    plain: bool,
    compiled: bool,
) -> TrainingStep:
    """New networks with their optimiser and loss, ready to learn."""
    build = build_pair if args.method == "bkd" else build_baseline
    pair = build(num_classes, args.width, digits=args.dataset == "digits")
    pair.prepare(device, bf16=precision == "bf16", plain=plain)
    optimizer = torch.optim.SGD(
        pair.parameters(),
        args.lr,
        args.momentum,
        weight_decay=args.weight_decay,
        fused=None if plain else True,
    )
    loss_function = baseline_loss
    if args.method == "bkd":
        loss_function = partial(
            pair_loss,
            masked_mean=args.masked_mean,
            detach_student_target=args.detach_student_target,
        )
    return TrainingStep(pair, optimizer, loss_function, args.batch_size, compiled=compiled)


if __name__ == "__main__":
    result = run_script(main, options)
    sys.exit(NO_TIPPING_POINT if result.get("guess") else 0)
