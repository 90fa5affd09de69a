"""Train teacher and student on wrong labels by Blind Knowledge Distillation (arXiv 2211.11355).

CIFAR-10N, the paper's networks, 300 epochs, one seed: 93.62 / 92.26 / 87.33 % clean test accuracy
on aggre / rand1 / worst; half an hour for four runs at a time on one H200. Digits, rand1, 5 seeds,
half a minute a run on a CPU core: 98.76 ± 0.43 %, plain cross-entropy 87.28 ± 2.03 %.
    python blind_knowledge_dist_training.py --dataset cifar10 --noise_type aggre --seed 42
"""

from utils.startup import run_script

import argparse
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

from data.datasets import Loaders, judging_probabilities, load_run, make_loaders
from data.images import ImageSet
from data.loader import Batch, Loader
from models.build import Training, make_training
from models.epoch_statistics import EpochStats
from models.fast.step_timing import foretell, measure_steps
from models.label_posterior import judge_labels
from models.linear_probe import backbone_features, out_of_fold
from models.losses import agreement
from models.noise_split import score, student_weights
from models.teacher_student import infer_logits
from models.weights import save_networks
from utils.console import say
from utils.devices import Machine, pick_machine
from utils.labels import Labels
from utils.methods import METHODS
from utils.options.own_images import OWN_IMAGES
from utils.options.training import training_parser
from utils.plots.draw import try_plots
from utils.run_folder.description import Description
from utils.run_folder.detection_report import log_fallback, log_split
from utils.run_folder.folder import RunFolder
from utils.run_folder.interruption import Interruption
from utils.run_folder.predictions_writer import PredictionsWriter
from utils.run_folder.session import Session
from utils.seeding import be_deterministic, seed_everything

IN_DOUBT = 3  # exit status: all is written, but the detection is a fallback or a class is lost


def train_epoch(
    training: Training, batches: Iterable[Batch], epoch: int, *, averaging: bool
) -> EpochStats:
    """One pass over the batches that are left of an epoch; returns the whole epoch's statistics.

    `averaging`: the averaged weights take in each step. Raises FloatingPointError where the loss
    or, after that, a weight is no longer finite.
    """
    step, rate, statistics, robust_phase, _, averaged, _ = training
    step.pair.train()
    for images, labels, index in batches:
        rate.set(epoch + statistics.share_done())
        mix = robust_phase.mix(index, epoch, statistics.steps)
        result = step(mix.of(images), labels, *robust_phase.inputs(index, mix))
        statistics.update(result, index, mixed=mix.mixed)
        robust_phase.update(result, index, mix)
        if averaged and averaging:
            averaged.update()
    stats = statistics.stats()
    step.check_weights()
    return stats


def write_predictions(
    args: argparse.Namespace, training: Training, loader: Loader, writer: PredictionsWriter
) -> dict[str, Any]:
    """Write what the split, the last epoch's pair and all epochs detect among the loader's images.

    Returns what training.json lacks yet.
    """
    pair, has_student = training.evaluated(), METHODS[args.method].has_student
    logits = infer_logits(pair, loader, len(loader.labels))
    agreements = agreement(*logits)  # [S, C]
    mean = agreements.clone()  # over the epochs; of images that are not trained on the last ones
    mean[writer.trained_rows] = training.robust_phase.predicted
    final, mean = (score(each, loader.labels) for each in (agreements, mean))
    networks = zip(pair.trained_networks(), logits, strict=False)  # the baseline has but one
    probabilities = {name: each.softmax(1) for name, each in networks}
    split = training.monitor.split() if has_student else None
    judgment = None
    if args.folds and not args.fold:
        judged = writer.out_of_fold(args.folds, sum(probabilities.values()) / len(probabilities))
        judgment = judge_labels(judged, loader.labels.cpu(), from_scratch=True)
    predictions = writer.write(split, final, mean, probabilities, judgment)
    record = {} if judgment is None else {"lost_classes": predictions.lost_classes()}
    if predictions.fallback:
        log_fallback(predictions, args.n_epoch, len(training.planted.places))
        record |= predictions.split_summary()
    return record


def judge(
    args: argparse.Namespace, images: ImageSet, description: Description, writer: PredictionsWriter
) -> dict[str, Any]:
    """Judge own labels without training a network; returns training.json."""
    writer.folder.make_room(args)
    writer.folder.finished_run(description)  # refuses the folder of another run
    backbone = partial(backbone_features, device=description.machine.device)
    judged = judging_probabilities(args, images, backbone, out_of_fold)
    record = writer.write_judged(description, judge_labels(judged, writer.labels.given))
    if not args.no_plots:
        try_plots(writer.folder.path)
    return record


def train_folds(args: argparse.Namespace, folder: RunFolder, description: Description) -> None:
    """Train what judges the images of all folds but the first, each as a run in the run folder."""
    folder.make_room(args)
    if folder.finished_run(description):
        return
    for fold in range(1, args.folds):
        say(f"fold {fold} of {args.folds}, for its images")
        changes = {"fold": fold, "run_dir": folder.fold(fold).path, "no_plots": True}
        main(argparse.Namespace(**vars(args) | changes))
    say(f"fold {args.folds} of {args.folds}, for its images and as the result")


def train(
    args: argparse.Namespace,
    run: Session,
    training: Training,
    loaders: Loaders,
    writer: PredictionsWriter,
) -> dict[str, Any]:
    """The algorithm, from where the run stands to its last epoch; returns training.json."""
    monitor, robust_phase = training.monitor, training.robust_phase
    has_student = METHODS[args.method].has_student
    alphas = (args.alpha1, args.alpha2, args.alpha3, args.alpha4)
    every = dict.fromkeys(("val", "sample"), args.noisy_val_freq) | {"test": args.clean_test_freq}
    for epoch in run.epochs(args.n_epoch):
        # Passes over the images: a signal may stop the run before any batch.
        naive = has_student and monitor.searching
        labels = loaders.train.labels = training.labels(epoch)  # [N]
        loaders.train.strong = args.strong_views > 0 and robust_phase.begun
        loaders.train.augmented = args.augmentation == "always" or not monitor.searching
        stats = train_epoch(training, run.batches(loaders.train), epoch, averaging=not naive)
        scores = training.scores(loaders.scored) if naive else None
        due = [name for name in every if getattr(loaders, name) and run.due(every[name])]
        predicted = {name: training.predict(getattr(loaders, name)) for name in due}
        # Conclusions: no batch is read below, so that an epoch counts whole or not at all.
        seen = training.planted.memorized(stats.prediction), robust_phase.visible()
        run.log_epoch(stats, predicted, seen, naive=naive, lr=training.rate.at(epoch))
        tipped = scores and monitor.update(stats.confidence, stats.agreement, scores)
        if tipped:  # the confidence peaked two epochs ago: the robust phase begins
            say(f"tipping point: epoch {tipped.epoch}; the robust phase begins")
            robust_phase.begin(student_weights(tipped.train_agreement, alphas))
            training.rate.tipping_point_found(epoch + 1)
            run.record["tipping_point"] = tipped.epoch
            predictions = writer.write(monitor.split())
            log_split(predictions)
            run.record |= predictions.split_summary()
            run.draw()
        if has_student and not monitor.searching:
            robust_phase.conclude(labels, seen[0], training.rate.left(epoch))
        if run.is_best():
            save_networks(training.evaluated(), run.folder, epoch, best=True)

    loaders.scored.augmented = False
    run.record |= write_predictions(args, training, loaders.scored, writer)
    save_networks(training.evaluated(), run.folder, args.n_epoch - 1)
    return run.finish()


def begin(
    args: argparse.Namespace, machine: Machine, images: ImageSet, labels: Labels, check: Any = bool
) -> tuple[Any, Loaders, Training]:
    """A run's generator, loaders and training, each time the same; `check`: before each batch."""
    generator = seed_everything(args.seed, machine.device)
    scored = METHODS[args.method].has_student and args.augmentation == "always"
    how = args.batch_size, generator, scored, machine.memory_format, check
    loaders = make_loaders(images, labels, *how)
    return generator, loaders, make_training(args, len(labels.class_names), loaders.train, machine)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train one pair, or the baseline, and write its run folder; returns training.json."""
    interruption, folder = Interruption(), RunFolder.of(args)
    machine = pick_machine(args.device, args.precision, args.compile)
    if args.deterministic:
        be_deterministic()
    may_have_changed = args.noise_path or args.dataset == OWN_IMAGES
    early = not (args.measure_steps or args.restart or may_have_changed)
    if early and (record := folder.finished_run(Description.of(args, machine))):
        say(f"{folder}: this run is finished")  # before anything is read
        return record

    images, labels = load_run(args)
    description = Description.of(args, machine, labels, images.digest())
    pixels, own = images.train.images.numpy(), None if args.fold else images.own
    writer = PredictionsWriter(folder, args.detection, labels, pixels, own)
    if not METHODS[args.method].has_networks:
        return judge(args, images, description, writer)
    anew = partial(begin, args, machine, images, labels)
    if args.measure_steps:
        return measure_steps(args, anew)
    if own and machine.device.type == "cpu" and (so_far := folder.progress(args, description)):
        foretell(args, anew, *so_far)
    if args.folds and not args.fold:
        train_folds(args, folder, description)
        interruption = Interruption()  # whose time is that of the last fold alone
    generator, loaders, training = anew(interruption.check)
    state = description, labels, training, generator, interruption
    with Session(folder, args, *state) as run:
        writer.log_warnings()
        finished = run.resume()
        record = finished or train(args, run, training, loaders, writer)
        if own and not (finished and folder.review.exists()):
            writer.write_page()  # last: the files of the images may be gone meanwhile
        return record


if __name__ == "__main__":
    result = run_script(main, training_parser().parse_args())
    sys.exit(IN_DOUBT if result.get("fallback") or result.get("lost_classes") else 0)
