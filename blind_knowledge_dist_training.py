"""Train teacher and student on wrong labels by Blind Knowledge Distillation (arXiv 2211.11355).

Digits, a sixth of the labels wrong (rand1): 98.87 ± 0.31 % clean test accuracy over 3 seeds, plain
cross-entropy 86.80 ± 2.55 %; 11 s a run on two CPU cores. The command for CIFAR-10N:
    python blind_knowledge_dist_training.py --dataset cifar10 --noise_type aggre --seed 42
"""

import argparse
import math
import sys
import time
from collections.abc import Iterable
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
from tqdm import tqdm

from data.datasets import (
    Loaders,
    choose_positions,
    given_labels,
    load_images,
    make_loaders,
)
from data.loader import Batch, Loader
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
from utils.devices import pick_device, pick_precision
from utils.epoch_log import EpochLog
from utils.metrics import accuracy
from utils.seeding import seed_everything

NO_TIPPING_POINT = 3  # exit status: all is written, but the detection result is a guess


class EpochStats(NamedTuple):
    """What one epoch's training passes showed."""

    loss: float  # averaged over the images, as its two parts
    naive_loss: float
    compensation_loss: float
    confidence: float  # the student's largest probability, averaged over the images
    agreement: Tensor  # [N], at the label


def train_epoch(step: TrainingStep, batches: Iterable[Batch], alpha: Tensor) -> EpochStats:
    """One pass over the batches; `alpha` [N]: how little each training image's label is trusted."""
    step.pair.train()
    sums = torch.zeros(4, device=alpha.device)  # of what each step saw on average
    agreements = torch.zeros_like(alpha)  # [N]
    images_seen = 0
    for images, labels, index in batches:
        seen = step(images, labels, alpha[index])
        agreements[index] = seen.agreement
        sums += len(labels) * seen.means
        images_seen += len(labels)
    return EpochStats(*(sums / images_seen).tolist(), agreements)


def measure_accuracy(pair: TeacherStudent, loader: Loader) -> float:
    """Accuracy of the pair's predictions on a loader's images, in percent."""
    return accuracy(infer(pair, loader, len(loader.labels)).argmax(1), loader.labels)


def score_images(pair: TeacherStudent, loader: Loader) -> Scores:
    """What the pair as it is now says of a loader's images and their labels."""
    return score(*infer_logits(pair, loader, len(loader.labels)), loader.labels)


def write_split(
    record: EpochRecord, guess: bool, detection: runs.DetectionWriter
) -> dict[str, Any]:
    """Split the images as they were scored in that epoch, and write and return what came out."""
    split = otsu(record.scores.agreement)
    group = trust_groups(record.scores.agreement, split)  # [scored images]
    sizes = torch.bincount(group, minlength=5)[1:].tolist()
    figures = {"split_epoch": record.epoch, "guess": guess}
    if split:
        figures |= split._asdict()
        print(
            f"split at {split.low_mean:.3f}, {split.threshold:.3f}, {split.high_mean:.3f}: "
            f"groups 1 (most trusted) to 4 (judged wrong) have {sizes} images"
        )
    else:
        print("all scores fall into one bin: there is nothing to split, nothing is flagged")
    arrays = to_arrays(group=group, **record.scores._asdict())
    detection.write(arrays["group"] == 4, **arrays, **figures)
    return {**figures, "group_sizes": sizes}


def to_arrays(**tensors: Tensor) -> dict[str, np.ndarray]:
    """The same on the host, for a file."""
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def save_networks(pair: TeacherStudent, folder: Path, prefix: str, epoch: int) -> None:
    """Each trained network in a file of its own, in the authors' format."""
    for name, network in pair.trained_networks().items():
        runs.save_network(folder / f"{prefix}{name}.pth.tar", network.state_dict(), epoch)


def train(
    args: argparse.Namespace,
    step: TrainingStep,
    loaders: Loaders,
    detection: runs.DetectionWriter,
) -> dict[str, Any]:
    """The algorithm, from the first epoch to the last; returns the run's record."""
    blind, pair = args.method == "bkd", step.pair
    folder, log = detection.folder, EpochLog(detection.folder)
    scheduler = torch.optim.lr_scheduler.StepLR(step.optimizer, args.lr_step, args.lr_gamma)
    alpha = torch.zeros(len(loaders.train.labels), device=loaders.train.device)  # one-hot targets
    monitor, tipped = TippingPointMonitor(), None
    record: dict[str, Any] = {"tipping_point": None, "best_val_epoch": None}
    best_val = -1.0
    for epoch in range(args.n_epoch):
        phase = "robust" if tipped else "naive" if blind else "ce"
        lr = scheduler.get_last_lr()[0]
        batches = progress_bar(loaders.train, epoch, args.print_freq)
        stats = train_epoch(step, batches, alpha)
        scheduler.step()
        if not math.isfinite(stats.loss):
            raise ValueError(f"epoch {epoch}: the loss is {stats.loss}; try a smaller --lr")

        if blind and not tipped:
            monitor.update(stats.confidence, stats.agreement, score_images(pair, loaders.scored))
            tipped = monitor.found()
            if tipped:
                print(f"tipping point: epoch {tipped.epoch}; the robust phase begins")
                alphas = (args.alpha1, args.alpha2, args.alpha3, args.alpha4)
                alpha = label_distrust(tipped.train_agreement, alphas)
                record["tipping_point"] = tipped.epoch
                record |= write_split(tipped, False, detection)

        val = test = None
        last = epoch + 1 == args.n_epoch
        if last or (epoch + 1) % args.noisy_val_freq == 0:
            val = measure_accuracy(pair, loaders.val)
            if val > best_val:
                best_val, record["best_val_epoch"] = val, epoch
                save_networks(pair, folder, "best_", epoch)
        if last or (epoch + 1) % args.clean_test_freq == 0:
            test = measure_accuracy(pair, loaders.test)
        log.add(
            epoch=epoch,
            phase=phase,
            lr=lr,
            loss=stats.loss,
            naive_loss=stats.naive_loss,
            compensation_loss=stats.compensation_loss if blind else None,
            student_confidence=stats.confidence if blind else None,
            noisy_val_accuracy=val,
            clean_test_accuracy=test,
        )

    if not blind:
        arrays = to_arrays(**score_images(pair, loaders.scored)._asdict())
        detection.write(arrays["prediction"] != detection.labels, **arrays)
    elif not tipped:
        guess = monitor.most_confident
        print(
            f"no tipping point in {args.n_epoch} epochs: the detection result is a guess, made at "
            f"epoch {guess.epoch}, where the student was most confident"
        )
        record |= write_split(guess, True, detection)
    save_networks(pair, folder, "", args.n_epoch - 1)
    return record | {"epochs": args.n_epoch, "noisy_val_accuracy": val, "clean_test_accuracy": test}


def progress_bar(batches: Loader, epoch: int, steps: int) -> tqdm:
    """The batches behind a bar on stderr, moved every so many steps; none without a terminal."""
    return tqdm(
        batches,
        desc=f"epoch {epoch}",
        leave=False,
        disable=None,
        miniters=steps,
        mininterval=0,
    )


def measure(args: argparse.Namespace, step: TrainingStep, loaders: Loaders) -> dict[str, Any]:
    """Time a few steps and one scoring batch, and print what the whole run would take."""
    device = loaders.train.device
    alpha = torch.zeros(len(loaders.train.labels), device=device)
    for steps in (WARM_UP + 1 if step.graphed else 1, args.measure_steps):  # first, warm up
        start = time.perf_counter()
        train_epoch(step, islice(loaders.train, steps), alpha)
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
    generator = seed_everything(args.seed, device)
    images = load_images(args.dataset, args.data_dir)
    labels = given_labels(
        args.dataset,
        args.noise_type,
        images.train.clean_labels,
        args.data_dir,
        args.noise_path,
        args.seed,
    )
    positions = choose_positions(len(labels), args.val_ratio, args.seed, args.limit_train)
    digits = args.dataset == "digits"
    if digits and len(positions.train) % args.batch_size == 1:
        raise ValueError(
            f"--batch_size {args.batch_size}: leaves a last batch of one of the "
            f"{len(positions.train)} training images, too few for batch norm on 8x8 images; "
            "choose another, or another --limit_train"
        )
    blind = args.method == "bkd"
    precision = pick_precision(args.precision, device)
    plain = precision == "fp32" and args.compile == "off"
    loaders = make_loaders(
        images,
        labels,
        positions,
        args.batch_size,
        generator,
        augment_scored=blind,
        memory_format=torch.contiguous_format if plain else torch.channels_last,
    )
    build = build_pair if blind else build_baseline
    pair = build(len(images.class_names), args.width, digits=digits)
    pair.prepare(device, bf16=precision == "bf16", plain=plain)
    optimizer = torch.optim.SGD(
        pair.parameters(),
        args.lr,
        args.momentum,
        weight_decay=args.weight_decay,
        fused=None if plain else True,
    )
    loss_function = baseline_loss
    if blind:
        loss_function = partial(
            pair_loss,
            masked_mean=args.masked_mean,
            detach_student_target=args.detach_student_target,
        )
    compiled = args.compile == "on" or (args.compile == "auto" and device.type == "cuda")
    step = TrainingStep(pair, optimizer, loss_function, args.batch_size, compiled=compiled)
    if args.measure_steps:
        return measure(args, step, loaders)

    folder = runs.run_folder(args)
    finished = runs.begin_run(folder, runs.describe(args, device, precision, compiled))
    if finished:
        print(f"{folder}: this run is finished")
        return finished
    print(
        f"{folder}: {len(positions.train)} training images on {device}, {precision}"
        + (", compiled" if compiled else ", plain" if plain else ""),
        flush=True,
    )
    detection = runs.DetectionWriter(
        folder,
        positions.scored,
        labels[positions.scored].numpy(),
        images.train.clean_labels[positions.scored].numpy(),
        images.class_names,
        images.train.images.numpy(),
    )
    record = train(args, step, loaders, detection)
    runs.write_json(folder / "timing.json", {"wall_seconds": time.perf_counter() - start})
    runs.write_json(folder / "training.json", record)
    return record


if __name__ == "__main__":
    result = run_script(main, options)
    sys.exit(NO_TIPPING_POINT if result.get("guess") else 0)
