"""One step, one epoch, and the algorithm around them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import blind_knowledge_dist_training as training
from data.datasets import Loaders, load_images, make_loaders
from data.images import ImageSet
from data.loader import Loader
from data.splits import choose_positions, split_indices
from models import epoch_statistics, noise_split
from models.build import Training
from models.epoch_statistics import EpochStatistics, EpochStats
from models.fast.training_step import TrainingStep
from models.learning_rate import LearningRate
from models.losses import agreement, pair_loss, robust_targets
from models.noise_split import (
    TippingPointMonitor,
    otsu,
    student_weights,
    tipping_point,
    trust_groups,
)
from models.robust_phase import RobustPhase, loss_with_departures
from models.teacher_student import TeacherStudent, build_pair
from tests import oracle
from tests.conftest import MadeUpCifar, devices, training_options
from utils.labels import Labels
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions


def small_loader(count: int, batch_size: int, **options: bool) -> Loader:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator).byte()
    labels = torch.randint(0, 10, (count,), generator=generator)
    statistics = {"mean": (0.5,), "std": (0.5,)}
    return Loader(
        images, labels, batch_size=batch_size, generator=generator, **statistics, **options
    )


def statistics_of(loader: Loader) -> EpochStatistics:
    return EpochStatistics(len(loader.labels), len(loader), torch.device("cpu"))


def small_pair() -> TeacherStudent:
    torch.manual_seed(5)
    return build_pair(10, 4, digits=True)


def papers_loss(teacher: Tensor, student: Tensor, labels: Tensor, alpha: Tensor) -> Tensor:
    targets = robust_targets(labels, student.softmax(1), alpha)
    return pair_loss(teacher, student, labels, targets).total


def train_first_epoch(
    pair: TeacherStudent, loader: Loader, alpha: Tensor, lr: float = 0.1
) -> EpochStats:
    optimizer = torch.optim.SGD(pair.parameters(), lr, 0.9, weight_decay=0.01)
    step = TrainingStep(pair, optimizer, loss_with_departures, batch_size=8)
    robust_phase = RobustPhase(len(alpha), 10, torch.device("cpu"))
    robust_phase.alpha.copy_(alpha)
    rate, statistics = LearningRate(optimizer, "step", 1), statistics_of(loader)
    state = Training(step, rate, statistics, robust_phase, TippingPointMonitor(), None)
    return training.train_epoch(state, loader, 0, averaging=False)


@pytest.mark.parametrize("alpha_value", [0.0, 0.4])
def test_two_steps_are_sgd_by_hand(alpha_value: float):
    loader, pair, twin = small_loader(16, 8), small_pair(), small_pair()
    alpha = torch.full((16,), alpha_value)
    train_first_epoch(pair, loader, alpha)

    velocity = {name: torch.zeros_like(w) for name, w in twin.named_parameters()}
    for step, (images, labels, index) in enumerate(loader):
        weights = dict(twin.named_parameters())
        loss = papers_loss(twin.teacher(images), twin.student(images), labels, alpha[index])
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                decayed = gradient + 0.01 * weight
                velocity[name] = decayed if step == 0 else 0.9 * velocity[name] + decayed
                weight -= 0.1 * velocity[name]
    for name, weight in pair.named_parameters():
        torch.testing.assert_close(weight, twin.get_parameter(name), msg=name)
    before = small_pair()
    for name in ("teacher.conv1.weight", "student.conv1.weight"):
        assert not torch.equal(pair.get_parameter(name), before.get_parameter(name))


def test_an_epoch_reports_what_the_training_passes_saw():
    loader, pair, twin = small_loader(20, 8, shuffle=True), small_pair(), small_pair()
    state = loader.generator.get_state()
    stats = train_first_epoch(pair, loader, torch.zeros(20), lr=0.0)
    loader.generator.set_state(state)
    losses, confidences, at_label = [], [], torch.zeros(20)
    for images, labels, index in loader:  # train mode, so a batch is normalised by itself
        with torch.no_grad():
            teacher, student = twin(images)
        loss = papers_loss(teacher, student, labels, torch.zeros(len(labels)))
        losses += [loss] * len(index)
        confidences += student.softmax(1).amax(1).tolist()
        at_label[index] = agreement(teacher, student)[torch.arange(len(labels)), labels]
    assert stats.confidence == pytest.approx(np.mean(confidences), rel=1e-5)
    assert stats.loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert stats.loss == pytest.approx(stats.naive_loss + stats.compensation_loss, rel=1e-5)
    torch.testing.assert_close(stats.agreement, at_label)


def test_the_students_weight_is_the_groups_alpha():
    scores = torch.cat([torch.linspace(0.0, 0.2, 50), torch.linspace(0.7, 1.0, 80)])
    alpha = student_weights(scores, (0.3, 0.45, 0.55, 0.7))
    expected = torch.tensor([0.3, 0.45, 0.55, 0.7])[trust_groups(scores, otsu(scores)) - 1]
    assert torch.equal(alpha, expected) and len(alpha.unique()) == 4
    assert torch.equal(student_weights(torch.full((9,), 0.5), (1, 1, 1, 1)), torch.zeros(9))


def test_only_training_and_scoring_images_are_augmented(made_up_cifar: MadeUpCifar):
    images = load_images("cifar10", made_up_cifar.folder)
    positions = choose_positions(500, 0.1, seed=0, limit=None)
    clean = images.train.clean_labels
    labels = Labels(clean, clean, images.class_names, positions)
    loaders = make_loaders(images, labels, 128, torch.Generator(), augment_scored=True)
    assert loaders.train.augment is loaders.scored.augment is images.augment is not None
    assert loaders.val.augment is loaders.test.augment is None
    assert [loader.shuffle for loader in loaders] == [True, False, False, False]
    assert [len(loader.labels) for loader in loaders] == [450, 500, 50, 100]


def tips_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let the tipping point be that epoch, found at the end of epoch 5."""
    monkeypatch.setattr(
        noise_split, "tipping_point", lambda curve: epoch if len(curve) >= 6 else None
    )


def metrics_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_splits_at_its_tipping_point_and_enters_the_robust_phase(digits_run):
    folder = RunFolder.of(digits_run).path
    rows, record = metrics_of(folder), json.loads((folder / "training.json").read_text())
    assert [int(row["epoch"]) for row in rows] == list(range(30))
    curve = [float(row["student_confidence"]) for row in rows]
    tipped = record["tipping_point"]
    assert tipped == tipping_point(curve) == record["split_epoch"] and record["fallback"] is False
    # Found two epochs later; the weights count from the epoch after that.
    robust = [row["phase"] == "robust" for row in rows]
    assert robust == [epoch > tipped + 2 for epoch in range(30)]
    assert [row["lr"] for row in rows] == ["0.02"] * 15 + ["0.002"] * 15

    scores = Predictions.read(folder / "predictions.npz")
    detection = np.load(folder / "detection.npy", allow_pickle=False)
    agreements = torch.from_numpy(scores.split_agreement)
    split = otsu(agreements)
    assert np.array_equal(scores.index, np.arange(1297)) and detection.shape == (1297,)
    assert scores.cuts == split
    assert np.array_equal(scores.split_group, trust_groups(agreements, split).numpy())
    assert np.array_equal(detection, scores.split_group == 4)
    members = [scores.split_group == g for g in (1, 2, 3, 4)]
    wrong = scores.label != scores.true_label
    assert record["group_sizes"] == [each.sum() for each in members]
    assert record["group_wrong"] == [(wrong & each).sum() for each in members]
    assert record["group_sizes"][3] == detection.sum() > 0
    assert record["estimated_noise_rate"] == (scores.split_agreement < split.threshold).mean()
    assert record["true_noise_rate"] == wrong.mean()


def test_weights_and_detection_come_from_the_tipping_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Weights from that epoch's training passes, detection from its scoring of the full set."""
    alphas_used, trained, means, scored, final = [], [], [], [], []
    train_epoch, score_images = training.train_epoch, training.score_images
    write_predictions = training.write_predictions

    def spy_train(state: Training, *arguments: object, **options: bool) -> EpochStats:
        alphas_used.append(state.robust_phase.alpha.cpu().clone())
        trained.append(train_epoch(state, *arguments, **options))
        means.append(state.robust_phase.predicted.cpu().clone())
        return trained[-1]

    def spy_score(pair, loader) -> training.Scores:
        scored.append(score_images(pair, loader))
        return scored[-1]

    monkeypatch.setattr(training, "train_epoch", spy_train)

    def spy_final(writer, pair, loader, *arguments: object) -> Predictions:
        final.append(score_images(pair, loader))
        return write_predictions(writer, pair, loader, *arguments)

    monkeypatch.setattr(training, "score_images", spy_score)
    monkeypatch.setattr(training, "write_predictions", spy_final)
    tips_at(monkeypatch, 3)
    words = ["--dataset", "digits", "--n_epoch", 7, "--limit_train", 500, "--results_dir", tmp_path]
    words += ["--alpha1", 0.1, "--alpha2", 0.2, "--alpha3", 0.6, "--alpha4", 0.9]
    args = training_options(*words)
    training.main(args)

    def groups_of(agreements: Tensor) -> Tensor:
        cuts = [cut for cut in oracle.otsu_cuts(agreements.double().tolist())]
        best = max((cut.quality, -s) for s, cut in enumerate(cuts) if cut)
        low_mean, high_mean = cuts[-best[1]].low_mean, cuts[-best[1]].high_mean
        numbers = agreements.double().tolist()
        return torch.tensor(oracle.trust_groups(numbers, low_mean, -best[1] / 1000, high_mean))

    expected = torch.tensor([0.1, 0.2, 0.6, 0.9])[groups_of(trained[3].agreement) - 1]
    assert all(torch.equal(alpha, torch.zeros(500)) for alpha in alphas_used[:6])
    assert torch.equal(alphas_used[6], expected)
    assert len(scored) == 6 and len(final) == 1  # until the tipping point is found; at the end
    predictions = Predictions.read(RunFolder.of(args).predictions)
    assert np.array_equal(predictions.split_agreement, scored[3].agreement.cpu().numpy())
    assert predictions.split_epoch == 3
    assert np.array_equal(predictions.final_agreement, final[0].agreement.cpu().numpy())
    assert np.array_equal(predictions.final_prediction, final[0].prediction.cpu().numpy())
    networks = predictions.teacher_probabilities, predictions.student_probabilities
    for probabilities in networks:
        assert probabilities.shape == (500, 10) and np.allclose(probabilities.sum(1), 1)
    assert np.array_equal(np.prod(networks, axis=0).argmax(1), predictions.final_prediction)
    assert not predictions.held_out.any()
    mean = np.zeros((1297, 10), np.float32)
    mean[split_indices(1297, 0, 0)[0][:500]] = means[-1].numpy()
    mean, rows = mean[predictions.index], np.arange(500)
    assert np.array_equal(predictions.mean_prediction, mean.argmax(1))
    assert np.array_equal(predictions.mean_agreement, mean[rows, predictions.label])
    flagged = predictions.index[groups_of(scored[3].agreement).numpy() == 4]
    detection = np.load(RunFolder.of(args).path / "detection.npy", allow_pickle=False)
    assert np.array_equal(np.flatnonzero(detection), flagged)


@pytest.mark.parametrize("method", ["bkd", "ce"])
def test_images_and_rate_stay_until_the_tipping_point_is_found(
    method: str, made_up_cifar: MadeUpCifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the defaults of bkd and the compact network; ce has no tipping point to wait for."""
    loaders, augmented, rates = [], [], []
    make_loaders, train_epoch = training.make_loaders, training.train_epoch

    def spy_make(*arguments: object, **options: object) -> Loaders:
        loaders.append(make_loaders(*arguments, **options))
        return loaders[-1]

    def spy_train(state: Training, *arguments: object, **options: bool) -> EpochStats:
        augmented.append(loaders[-1].train.augmented)
        stats = train_epoch(state, *arguments, **options)
        rates.append(state.step.optimizer.param_groups[0]["lr"])  # of the last of two steps
        return stats

    monkeypatch.setattr(training, "make_loaders", spy_make)
    monkeypatch.setattr(training, "train_epoch", spy_train)
    tips_at(monkeypatch, 3)
    folders = ("--data_dir", made_up_cifar.folder, "--results_dir", tmp_path)
    folders += ("--noise_path", made_up_cifar.label_file)
    words = ("--method", method, "--n_epoch", 8, "--lr", 0.1, "--warm_up", 0, "--limit_train", 256)
    training.main(training_options("--net", "compact", "--width", 2, *words, *folders))
    if method == "ce":
        assert augmented == [True] * 8
        assert rates == pytest.approx([0.1 * (7.5 - epoch) / 8 for epoch in range(8)])
    else:
        assert augmented == [False] * 6 + [True] * 2
        assert rates == pytest.approx([0.1] * 6 + [0.1 * 1.5 / 2, 0.1 * 0.5 / 2])
        assert loaders[-1].scored.augment is None


@pytest.mark.parametrize(
    "departure",
    [
        "--class_balance 1",
        "--target posterior",
        "--target posterior --ensemble_momentum 0.3",
        "--target_for both",
        "--compensation naive",
        "--mixup 1",
        "--ema_decay 0.9",
        "--detection final",
    ],
)
def test_each_departure_changes_the_robust_phase_alone(
    departure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Compared with the same without its last option: nothing else may change."""
    tips_at(monkeypatch, 3)
    words = departure.split()
    folders = []
    for name, options in (("without", words[:-2]), ("with", words)):
        run = ("--dataset", "digits", "--n_epoch", 8, "--limit_train", 200, *options)
        args = training_options(*run, "--results_dir", tmp_path / name)
        training.main(args)
        folders.append(RunFolder.of(args).path)
    before, after = ([*metrics_of(folder)] for folder in folders)
    same = [one == other for one, other in zip(before, after, strict=True)]
    assert all(same[:6])  # the tipping point is found in the sixth epoch
    networks = [(folder / "teacher.pth.tar").read_bytes() for folder in folders]
    flags = [(folder / "detection.npy").read_bytes() for folder in folders]
    if words[0] == "--detection":
        assert all(same) and networks[0] == networks[1] and flags[0] != flags[1]
    else:
        assert networks[0] != networks[1] and flags[0] == flags[1]


def test_the_baseline_has_no_split_to_detect_by(capsys):
    with pytest.raises(SystemExit, match="2"):
        training_options("--dataset", "digits", "--method", "ce", "--detection", "split")
    assert "--detection split: --method ce has no split" in capsys.readouterr().err


def test_without_a_tipping_point_the_result_is_a_fallback(tmp_path: Path, capsys):
    words = ("--dataset", "digits", "--n_epoch", 4, "--limit_train", 300, "--results_dir", tmp_path)
    args = training_options(*words)
    record = training.main(args)
    folder = RunFolder.of(args).path
    curve = [float(row["student_confidence"]) for row in metrics_of(folder)]
    assert record["tipping_point"] is None and record["fallback"] is True
    assert record["split_epoch"] == int(np.argmax(curve))
    assert f"the split at epoch {np.argmax(curve)}, where" in capsys.readouterr().out
    predictions = Predictions.read(folder / "predictions.npz")
    scored, group = predictions.index, predictions.split_group
    assert predictions.fallback and len(scored) == 300
    detection = np.load(folder / "detection.npy", allow_pickle=False)
    assert len(detection) == 1297 and np.array_equal(detection[scored], group == 4)
    assert not np.delete(detection, scored).any()


def test_the_best_validation_epoch_is_the_first_with_the_largest_accuracy(digits_run):
    folder = RunFolder.of(digits_run)
    accuracies = [row["noisy_val_accuracy"] for row in metrics_of(folder.path)]
    known = [float(cell) if cell else -1.0 for cell in accuracies]
    best = json.loads(folder.training.read_text())["best_val_epoch"]
    assert best == known.index(max(known)) and sum(each >= 0 for each in known) == 3
    assert torch.load(folder.network("teacher", best=True))["epoch"] == best


def test_the_test_labels_change_nothing_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("--dataset", "digits", "--n_epoch", 3, "--limit_train", 300, "--clean_test_freq", 1)
    folders, load = [], training.load_images
    for shift in (0, 1):

        def shifted(*arguments: object, shift: int = shift, **options: object) -> ImageSet:
            images = load(*arguments, **options)
            labels = (images.test.clean_labels + shift) % 10
            return images._replace(test=images.test._replace(clean_labels=labels))

        monkeypatch.setattr(training, "load_images", shifted)
        args = training_options(*words, "--results_dir", tmp_path / str(shift))
        training.main(args)
        folders.append(RunFolder.of(args))
    one, other = folders
    for name in ("teacher.pth.tar", "best_student.pth.tar", "detection.npy", "predictions.npz"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    rows = [metrics_of(folder.path) for folder in folders]
    tests = [[row.pop("clean_test_accuracy") for row in each] for each in rows]
    assert rows[0] == rows[1] and tests[0] != tests[1]


def test_a_class_that_vanishes_in_the_robust_phase_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """From epoch 7 on both networks are kept from predicting class 3."""
    epochs, train_epoch = iter(range(9)), training.train_epoch

    def forgetful(state: Training, *arguments: object, **options: bool) -> EpochStats:
        stats = train_epoch(state, *arguments, **options)
        if next(epochs) >= 7:
            for network in (state.step.pair.teacher, state.step.pair.student):
                network.linear.bias.data[3] = -100
        return stats

    monkeypatch.setattr(training, "train_epoch", forgetful)
    tips_at(monkeypatch, 3)
    words = ("--dataset", "digits", "--n_epoch", 9, "--clean_test_freq", 1, "--lr", 0.005)
    args = training_options(*words, "--results_dir", tmp_path)
    training.main(args)
    said = capsys.readouterr().out
    vanished = [row["vanished_classes"].split() for row in metrics_of(RunFolder.of(args).path)]
    assert vanished[:7] == [[]] * 7 and all("3" in classes for classes in vanished[7:])
    assert said.count("warning: epoch 7: no image is predicted as '3' any more") == 1
    assert said.count("predicted as '3'") == 1


def test_nothing_to_split_flags_nothing(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    def all_alike(agreements: Tensor, labels: Tensor) -> training.Scores:
        return training.Scores(torch.full((len(labels),), 0.25), labels)

    monkeypatch.setattr(training, "score", all_alike)
    words = ("--dataset", "digits", "--n_epoch", 1, "--limit_train", 100, "--results_dir", tmp_path)
    record = training.main(training_options(*words))
    said = capsys.readouterr().out
    assert "no split" in said and "the split flags 0 labels as wrong, 0 of them correctly" in said
    assert record["group_sizes"] == [100, 0, 0, 0] and record["estimated_noise_rate"] == 0
    assert not np.load(RunFolder.of(training_options(*words)).path / "detection.npy").any()


@devices
@pytest.mark.parametrize("steps", [1, 50])  # as on a CPU, and as on CUDA
def test_a_loss_that_is_not_finite_stops_the_run(
    device: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is named before the weights, which are not finite either."""
    monkeypatch.setitem(epoch_statistics.STEPS_PER_CHECK, device, steps)
    words = ("--dataset", "digits", "--lr", 1e30, "--n_epoch", 3, "--limit_train", 200)
    words += ("--device", device)
    with pytest.raises(ValueError, match=r"epoch \d, step \d: the loss is (nan|inf)"):
        training.main(training_options(*words, "--results_dir", tmp_path))


def test_the_same_seed_gives_the_same_files(
    made_up_cifar: MadeUpCifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Augmented images, both phases, the split and the evaluations included."""
    tips_at(monkeypatch, 2)
    folders = []
    for name in ("first", "second"):
        words = ["--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file]
        words += ["--width", 4, "--n_epoch", 7, "--limit_train", 200, "--clean_test_freq", 2]
        args = training_options(*words, "--results_dir", tmp_path / name)
        assert training.main(args)["tipping_point"] == 2
        folders.append(RunFolder.of(args).path)
    names = {path.name for path in folders[0].iterdir()}
    assert names == {path.name for path in folders[1].iterdir()}
    for name in names - {"args.json", "timing.json", "training.log"}:  # the folder, and times
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_a_finished_run_is_not_repeated_and_another_one_refused(digits_run, capsys):
    folder = RunFolder.of(digits_run).path
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    record = training.main(digits_run)
    assert "finished" in capsys.readouterr().out
    assert record == json.loads((folder / "training.json").read_text())
    other = training_options("--dataset", "digits", "--noise_type", "rand1", "--lr", 0.5)
    other.results_dir = digits_run.results_dir
    with pytest.raises(ValueError, match=r"--lr 0.02 there, 0.5 here"):
        training.main(other)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_folder_of_unknown_origin_is_not_overwritten(tmp_path: Path):
    folder = tmp_path / "digits_worst_seed_0"
    folder.mkdir()
    (folder / "teacher.pth.tar").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"teacher\.pth\.tar of unknown origin"):
        training.main(training_options("--dataset", "digits", "--results_dir", tmp_path))
    assert [path.name for path in folder.iterdir()] == ["teacher.pth.tar"]
    assert (folder / "teacher.pth.tar").read_bytes() == b"precious"


@pytest.mark.parametrize("size", [1, 16])
def test_a_batch_of_one_digit_is_refused_before_anything_is_written(size: int, tmp_path: Path):
    words = ("--dataset", "digits", "--batch_size", size, "--results_dir", tmp_path)
    with pytest.raises(ValueError, match=f"--batch_size {size}: gives a batch of one"):
        training.main(training_options(*words))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["bkd+", "ce"])
def test_measuring_writes_nothing(method: str, tmp_path: Path, capsys):
    words = ("--dataset", "digits", "--method", method, "--ema_decay", 0.9, "--n_epoch", 30)
    args = training_options(*words, "--measure_steps", 2, "--results_dir", tmp_path)
    assert all(0 < value < 60 for value in training.main(args).values())
    said = capsys.readouterr().out
    assert " s a step of 64 images, " in said and "30 epochs of 21 steps: about " in said
    assert ("the images are scored" in said) == (method == "bkd+")
    assert list(tmp_path.iterdir()) == []
