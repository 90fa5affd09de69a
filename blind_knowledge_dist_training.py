"""Train teacher and student on wrong labels by Blind Knowledge Distillation (arXiv 2211.11355).

Digits, a sixth of the labels wrong (rand1): 98.87 ± 0.12 % clean test accuracy over 3 seeds, plain
cross-entropy 86.60 ± 1.25 %; 41 s a run, two at a time, on two slow cores. For CIFAR-10N:
    python blind_knowledge_dist_training.py --dataset cifar10 --noise_type aggre --seed 42
"""

from utils.startup import run_script

import argparse
import hashlib
import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from data.datasets import Loaders, given_labels, load_images, make_loaders
from data.images import ImageSet
from data.loader import Batch, Loader
from data.splits import Positions, check_last_batch, check_limit, choose_positions
from models.build import average_weights, make_guidance, make_step
from models.epoch_statistics import EpochStatistics, EpochStats
from models.fast.step_timing import measure_steps
from models.fast.training_step import TrainingStep
from models.guidance import Guidance
from models.learning_rate import LearningRate
from models.noise_split import Scores, TippingPointMonitor, score, student_weights
from models.scoring import ensemble_arrays, final_arrays, split_arrays
from models.teacher_student import TeacherStudent, infer, infer_logits
from models.weights import save_networks
from utils.console import say
from utils.devices import pick_machine
from utils.label_sets import LABEL_SETS
from utils.options.own_images import OWN_IMAGES, choose_by_count, defaults_by_count
from utils.options.training import training_parser
from utils.run_folder.folder import RunFolder, describe
from utils.run_folder.predictions import PredictionsWriter
from utils.run_folder.session import Session, Truth
from utils.seeding import be_deterministic, seed_everything

NO_TIPPING_POINT = 3  # exit status: all is written, but the detection result is a fallback


def train_epoch(
    step: TrainingStep,
    batches: Iterable[Batch],
    guidance: Guidance,
    averaged: AveragedModel | None,
    statistics: EpochStatistics,
    rate: LearningRate,
    epoch: int,
) -> EpochStats:
    """One pass over the batches; `averaged` takes in the weights of each step.

    `statistics`: of the batches before these, where the epoch was interrupted. Raises
    FloatingPointError where the loss or the weights are no longer finite.
    """
    step.pair.train()
    for images, labels, index in batches:
        rate.set(epoch + statistics.share_done())
        mix = guidance.mix(index, epoch, statistics.steps)
        result = step(mix.of(images), labels, *guidance.of(index, mix))
        statistics.add(result, index)
        guidance.add(result, index, mix)
        if averaged:
            averaged.update_parameters(step.pair)
    step.check_weights()
    return statistics.stats()


def predict(pair: TeacherStudent, loader: Loader) -> Tensor:
    """The pair's predictions [N] of a loader's images, in data order."""
    return infer(pair, loader, len(loader.labels)).argmax(1)


def score_images(pair: TeacherStudent, loader: Loader) -> Scores:
    """The pair's scores of a loader's N images at their labels, in data order."""
    return score(*infer_logits(pair, loader, len(loader.labels)), loader.labels)


def write_predictions(
    args: argparse.Namespace,
    monitor: TippingPointMonitor | None,
    final: dict[str, Any],
    ensemble: dict[str, Any],
    writer: PredictionsWriter,
) -> dict[str, Any]:
    """Write what the run's split, its last epoch and all its epochs detect.

    Returns what training.json lacks yet.

    `monitor`: None for the baseline, which has no split.
    """
    if monitor is None:
        writer.write({**final, **ensemble, "detection": args.detection})
        return {}
    split = split_arrays(monitor.record(), fallback=monitor.searching)
    last = {f"final_{name}": final.pop(name) for name in ("agreement", "prediction")}
    last |= {name: array for name, array in final.items() if name.endswith("_probabilities")}
    writer.write({**split, **last, **ensemble, "detection": args.detection})
    if not monitor.searching:
        return {}
    say(
        f"no tipping point in {args.n_epoch} epochs: the detection result is a fallback, the split "
        f"at epoch {split['split_epoch']}, where the student was most confident"
    )
    return writer.tell_split(split)


def train(
    args: argparse.Namespace,
    run: Session,
    step: TrainingStep,
    loaders: Loaders,
    guidance: Guidance,
    writer: PredictionsWriter,
    **resumable: Any,
) -> dict[str, Any]:
    """The algorithm, from where the run stands to its last epoch; returns training.json.

    `resumable`: further arguments of `Session.resume`.
    """
    pair, blind = step.pair, args.method != "ce"
    labels = loaders.train.labels  # [N], given
    alphas = (args.alpha1, args.alpha2, args.alpha3, args.alpha4)
    shape = {"lr_step": args.lr_step, "lr_gamma": args.lr_gamma, "warm_up": args.warm_up}
    rate = LearningRate(step.optimizer, args.lr_schedule, args.n_epoch, **shape)
    statistics = EpochStatistics(len(labels), len(loaders.train), labels.device)
    monitor = TippingPointMonitor()
    averaged = average_weights(pair, args.ema_decay) if args.ema_decay else None
    state = {"networks": pair, "averaged": averaged, "optimizer": step.optimizer, "rate": rate}
    state |= {"statistics": statistics, "guidance": guidance, "monitor": monitor}
    run.resume(**{name: part for name, part in state.items() if part is not None}, **resumable)

    def due(epoch: int, every: int) -> bool:
        return (epoch + 1) % every == 0 or epoch + 1 == args.n_epoch

    def evaluated() -> TeacherStudent:
        return averaged.module if averaged and averaged.n_averaged else pair

    for epoch in run.epochs(args.n_epoch):
        # Passes over the images: a signal may stop the run before any batch.
        naive = blind and monitor.searching
        average = None if naive else averaged
        loaders.train.augmented = args.augmentation == "always" or not monitor.searching
        batches = run.batches(loaders.train)
        stats = train_epoch(step, batches, guidance, average, statistics, rate, epoch)
        scores = score_images(pair, loaders.scored) if naive else None
        val = predict(evaluated(), loaders.val) if due(epoch, args.noisy_val_freq) else None
        tested = loaders.test and due(epoch, args.clean_test_freq)
        test = predict(evaluated(), loaders.test) if tested else None
        # Conclusions: no batch is read below, so that an epoch counts whole or not at all.
        run.log_epoch(stats, val, test, naive=naive, lr=rate.at(epoch))
        tipped = scores and monitor.update(stats.confidence, stats.agreement, scores)
        if tipped:  # the confidence peaked two epochs ago: the robust phase begins
            say(f"tipping point: epoch {tipped.epoch}; the robust phase begins")
            guidance.begin_robust_phase(student_weights(tipped.train_agreement, alphas))
            rate.tipping_point_found(epoch + 1)
            run.record["tipping_point"] = tipped.epoch
            split = split_arrays(tipped, fallback=False)
            run.record |= writer.tell_split(split)
            writer.write(split)
            run.draw()
        if blind and not monitor.searching:
            guidance.estimate_transition(labels)
        if run.is_best():
            save_networks(evaluated(), run.folder, epoch, best=True)

    loaders.scored.augmented = False
    final = final_arrays(evaluated(), loaders.scored)
    ensemble = ensemble_arrays(guidance.predicted, labels, writer.trained_rows, final)
    run.record |= write_predictions(args, monitor if blind else None, final, ensemble, writer)
    save_networks(evaluated(), run.folder, args.n_epoch - 1)
    return run.finish()


def load(args: argparse.Namespace) -> tuple[ImageSet, Tensor, Positions]:
    """The run's images, their given labels [N], and what each image is for.

    For own images it sets the options that their number decides. Raises OSError or ValueError.
    """
    images = load_images(args.dataset, args.data_dir, vars(args), quiet=args.quiet)
    clean_labels, where = images.train.clean_labels, (args.data_dir, args.noise_path)
    labels = given_labels(
        args.dataset, args.noise_type, clean_labels, *where, args.seed, images.own
    )
    if images.own:
        choose_by_count(args, len(labels))
    positions = choose_positions(len(labels), args.val_ratio, args.seed, args.limit_train)
    if args.limit_train:
        check_limit(args.limit_train, labels[positions.train], args.batch_size, images.class_names)
    if args.dataset == "digits":
        check_last_batch(len(positions.train), args.batch_size)
    return images, labels, positions


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train one pair, or the baseline, and write its run folder; returns training.json."""
    run = Session(RunFolder.of(args), args)
    machine = pick_machine(args.device, args.precision, args.compile)
    if args.deterministic:
        be_deterministic()
    defaults = training_parser(LABEL_SETS).defaults_of(args.dataset, args.net, args.method)
    description = describe(args, defaults, machine)
    own = args.noise_path or args.dataset == OWN_IMAGES  # may have changed
    may_be_finished = not (args.measure_steps or args.restart or own)
    if may_be_finished and (record := run.finished(description)):  # before anything is read
        return record

    generator = seed_everything(args.seed, machine.device)
    images, labels, positions = load(args)
    if images.own:  # their number has set some of the options
        description = describe(
            args, defaults | defaults_by_count(args.method, len(labels)), machine
        )
    loaders = make_loaders(
        images,
        labels,
        positions,
        args.batch_size,
        generator,
        augment_scored=args.method != "ce" and args.augmentation == "always",
        memory_format=machine.memory_format,
        before_batch=run.interruption.check,
    )
    classes = len(images.class_names)
    if args.method == "ce" and args.detection == "split":
        raise ValueError("--detection split: the baseline has no split; leave it out")
    step = make_step(args, classes, loaders.train, machine)
    guidance = make_guidance(args, classes, loaders.train.labels)
    if args.measure_steps:
        return measure_steps(args, step, guidance, loaders)

    scored, clean_labels = positions.scored, images.train.clean_labels
    given = loaders.train.labels, loaders.val.labels, loaders.test.labels if loaders.test else None
    truth = Truth(images.class_names, clean_labels[positions.train].to(machine.device), *given)
    writer = PredictionsWriter(
        run.folder,
        scored,
        positions.train,
        labels[scored].numpy(),
        clean_labels[scored].numpy(),
        images.class_names,
        images.train.images.numpy(),
        images.own,
    )
    digest = hashlib.sha256(labels.numpy().tobytes() + images.digest())
    description["labels_sha256"] = digest.hexdigest()
    resumable = {"machine": machine, "truth": truth, "generator": generator}
    with run:
        run.tell_warnings(images.own.warnings if images.own else [])
        return run.finished(description) or train(
            args, run, step, loaders, guidance, writer, description=description, **resumable
        )


if __name__ == "__main__":
    result = run_script(main, training_parser(LABEL_SETS).parse_args())
    sys.exit(NO_TIPPING_POINT if result.get("fallback") else 0)
