"""One step, one epoch, and the algorithm around them."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import blind_knowledge_dist_training as training
from data import datasets
from data.datasets import load_images, make_loaders
from data.loader import Loader
from data.splits import choose_positions, split_indices
from models import build, epoch_statistics, noise_split, robust_phase
from models.build import Training
from models.epoch_statistics import EpochStatistics, EpochStats
from models.fast.training_step import TrainingStep
from models.learning_rate import LearningRate
from models.losses import agreement, pair_loss, robust_targets
from models.noise_split import TippingPointMonitor, otsu, tipping_point, trust_groups
from models.planted_labels import PlantedLabels
from models.robust_phase import RobustPhase, loss_with_departures
from models.teacher_student import TeacherStudent, build_pair, infer
from tests import oracle
from tests.conftest import MadeUpCifar, devices, train, training_options
from utils.labels import Labels
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions


def small_loader(count: int, batch_size: int, **how: bool) -> Loader:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator).byte()
    labels = torch.randint(0, 10, (count,), generator=generator)
    how |= {"batch_size": batch_size, "generator": generator, "mean": (0.5,), "std": (0.5,)}
    return Loader(images, labels, **how)


def small_pair() -> TeacherStudent:
    torch.manual_seed(5)
    return build_pair(10, 4, digits=True)


def training_of(step: TrainingStep, rate: LearningRate, loader: Loader) -> Training:
    """All that training on that loader's images of ten classes changes."""
    count, device = len(loader.labels), torch.device("cpu")
    statistics = EpochStatistics(count, len(loader), device)
    robust_phase = RobustPhase(count, 10, device)
    planted = PlantedLabels(loader.labels, 10, 0.0, 0)
    return Training(step, rate, statistics, robust_phase, TippingPointMonitor(), None, planted)


def test_an_epoch_is_sgd_and_reports_what_its_passes_saw():
    loader, before, pair, twin = small_loader(20, 8, shuffle=True), *(small_pair() for _ in "123")
    alpha, order = torch.linspace(0, 0.8, 20), loader.generator.get_state()
    optimizers = [
        torch.optim.SGD(each.parameters(), 0.1, 0.9, weight_decay=0.01) for each in (pair, twin)
    ]
    step = TrainingStep(pair, optimizers[0], loss_with_departures, batch_size=8)
    state = training_of(step, LearningRate(optimizers[0], "step", 1), loader)
    state.robust_phase.alpha.copy_(alpha)
    stats = training.train_epoch(state, loader, 0, averaging=False)
    loader.generator.set_state(order)
    losses, confidences, at_label = [], [], torch.zeros(20)
    for images, labels, index in loader:
        teacher, student = twin(images)
        targets = robust_targets(labels, student.softmax(1), alpha[index])
        loss = pair_loss(teacher, student, labels, targets).total
        losses += [loss.item()] * len(index)
        confidences += student.softmax(1).amax(1).tolist()
        at_label[index] = agreement(teacher, student).detach()[torch.arange(len(labels)), labels]
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
    for name, weight in pair.named_parameters():
        torch.testing.assert_close(weight, twin.get_parameter(name), msg=name)
        assert not torch.equal(weight, before.get_parameter(name)), name
    assert stats.confidence == pytest.approx(np.mean(confidences), rel=1e-5)
    assert stats.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert stats.loss == pytest.approx(stats.naive_loss + stats.compensation_loss, rel=1e-5)
    torch.testing.assert_close(stats.agreement, at_label)


def test_only_training_and_scoring_images_are_augmented(made_up_cifar: MadeUpCifar):
    images = load_images("cifar10", made_up_cifar.folder)
    positions = choose_positions(500, 0.1, seed=0, limit=None)
    clean = images.train.clean_labels
    labels = Labels(clean, clean, images.class_names, positions)
    loaders = make_loaders(images, labels, 128, torch.Generator(), augment_scored=True)
    assert loaders.train.augment is loaders.scored.augment is images.augment is not None
    assert all(loader.augment is None for loader in loaders[2:])
    assert [loader.shuffle for loader in loaders] == [True, False, False, False, False]
    assert [len(loader.labels) for loader in loaders] == [450, 500, 50, 50, 100]


def results_of(monkeypatch: pytest.MonkeyPatch, name: str, owner: object = training) -> list:
    """Note what each call of that function returns, by default of the training script."""
    function, results = getattr(owner, name), []

    def noted(*arguments: object, **options: object) -> object:
        results.append(function(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(owner, name, noted)
    return results


def tips_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let the tipping point be that epoch, found at the end of the third after it."""
    found = epoch + 3
    monkeypatch.setattr(
        noise_split, "tipping_point", lambda curve: epoch if len(curve) >= found else None
    )


def metrics_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_memorized_share_is_the_training_less_the_held_out_labels_agreed_with(tmp_path):
    arguments = ["--n_epoch", 2, "--width", 4, "--val_ratio", 0.2, "--results_dir", tmp_path]
    args = training_options("--dataset", "digits", *arguments)
    record, folder = training.main(args), RunFolder.of(args).path
    predictions = Predictions.read(folder / "predictions.npz")
    agreed = predictions.final_prediction == predictions.label  # of all images, in data order
    train, val = split_indices(1297, 0.2, args.seed)
    memorized = 100 * (agreed[train[: len(val)]].mean() - agreed[val].mean())
    assert record["memorized_share"] == pytest.approx(memorized) != 0
    assert float(metrics_of(folder)[-1]["memorized_share"]) == record["memorized_share"]


def test_a_run_splits_at_its_tipping_point_and_enters_the_robust_phase(digits_run):
    folder = RunFolder.of(digits_run).path
    rows, record = metrics_of(folder), json.loads((folder / "training.json").read_text())
    assert [int(row["epoch"]) for row in rows] == list(range(30))
    curve = [float(row["student_confidence"]) for row in rows]
    tipped = record["tipping_point"]
    assert tipped == tipping_point(curve) == record["split_epoch"] and record["fallback"] is False
    # Found two epochs later; the weights count from the epoch after that.
    assert [row["phase"] == "robust" for row in rows] == [epoch > tipped + 2 for epoch in range(30)]
    assert [row["lr"] for row in rows] == ["0.02"] * 15 + ["0.002"] * 15
    known = [float(row["noisy_val_accuracy"] or -1) for row in rows]
    best = record["best_val_epoch"]  # the first with the largest accuracy
    assert best == known.index(max(known)) and sum(each >= 0 for each in known) == 3
    assert torch.load(folder / "best_teacher.pth.tar")["epoch"] == best
    assert record["memorized_share"] is None and not rows[-1]["memorized_share"]  # none held out

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


def test_planted_labels_are_trained_on_until_the_student_is_blind(tmp_path: Path, monkeypatch):
    tips_at(monkeypatch, 1)
    monkeypatch.setattr(robust_phase, "MEMORIZED", 1e-6)  # blind at the first rise
    states, used = [], []
    train_epoch = training.train_epoch

    def spy(state: Training, batches: Iterable, *arguments: object, **options: bool) -> EpochStats:
        states.append(state)
        taken = []

        def noted() -> Iterator:
            for images, labels, index in batches:
                taken.append((index, labels))
                yield images, labels, index

        stats = train_epoch(state, noted(), *arguments, **options)
        index, labels = (torch.cat(each) for each in zip(*taken, strict=True))
        used.append(labels[index.argsort()])
        return stats

    monkeypatch.setattr(training, "train_epoch", spy)
    folder, record = train(tmp_path, "--dataset digits --method bkd+ --n_epoch 16")
    planted, rows = states[0].planted, metrics_of(folder.path)
    assert len(planted.places) == 64 and planted.labels is not planted.given
    seen = [row["visibility"] for row in rows]
    last = seen.index("0.0")  # the first epoch without planted labels
    assert last > 4 and seen[:4] == [""] * 4 and set(seen[4:last]) == {"100.0"}
    assert set(seen[last:]) == {"0.0"} and record["visibility"] == 0
    for epoch, labels in enumerate(used):
        assert torch.equal(labels, planted.labels if epoch < last else planted.given), epoch
    given = Predictions.read(folder.predictions)
    places = split_indices(1297, 0, 0)[0]
    assert np.array_equal(given.label[given.index.argsort()][places], planted.given.numpy())


def test_planted_labels_have_no_use_once_little_of_the_rate_is_left():
    loader = small_loader(20, 8)
    optimizer = torch.optim.SGD(small_pair().parameters(), 0.1)
    state = training_of(None, LearningRate(optimizer, "linear", 8), loader)
    planted = PlantedLabels(loader.labels, 10, 0.5, 0)
    state = state._replace(planted=planted)
    assert all(state.labels(epoch) is planted.labels for epoch in range(8))
    state.robust_phase.begin(torch.zeros(20))
    assert [state.labels(epoch) is planted.labels for epoch in range(8)] == [True] * 7 + [False]
    assert state.labels(7) is planted.given


def test_weights_and_detection_come_from_the_tipping_epoch(tmp_path: Path, monkeypatch):
    """Weights from that epoch's training passes, detection from its scoring of the full set."""
    alphas_used, means, final = [], [], []
    trained = results_of(monkeypatch, "train_epoch")
    scored = results_of(monkeypatch, "scores", Training)
    train_epoch, write_predictions = training.train_epoch, training.write_predictions

    def spy_train(state: Training, *arguments: object, **options: bool) -> EpochStats:
        alphas_used.append(state.robust_phase.alpha.cpu().clone())
        stats = train_epoch(state, *arguments, **options)
        means.append(state.robust_phase.predicted.cpu().clone())
        return stats

    def spy_final(args, state: Training, loader, writer) -> dict[str, object]:
        agreements = infer(state.evaluated(), loader, len(loader.labels))
        final.append(noise_split.score(agreements, loader.labels))
        return write_predictions(args, state, loader, writer)

    monkeypatch.setattr(training, "train_epoch", spy_train)
    monkeypatch.setattr(training, "write_predictions", spy_final)
    tips_at(monkeypatch, 1)
    alphas = "--alpha1 0.1 --alpha2 0.2 --alpha3 0.6 --alpha4 0.9"
    folder, _ = train(tmp_path, f"--dataset digits --n_epoch 5 --limit_train 500 {alphas}")

    def groups_of(agreements: Tensor) -> Tensor:
        numbers = agreements.double().tolist()
        cuts = enumerate(oracle.otsu_cuts(numbers))
        s, best = max((each for each in cuts if each[1]), key=lambda each: each[1].quality)
        return torch.tensor(oracle.trust_groups(numbers, best.low_mean, s / 1000, best.high_mean))

    expected = torch.tensor([0.1, 0.2, 0.6, 0.9])[groups_of(trained[1].agreement) - 1]
    assert all(torch.equal(alpha, torch.zeros(500)) for alpha in alphas_used[:4])
    assert torch.equal(alphas_used[4], expected)
    assert len(scored) == 4 and len(final) == 1  # until the tipping point is found; at the end
    predictions = Predictions.read(folder.predictions)
    assert np.array_equal(predictions.split_agreement, scored[1].agreement.cpu().numpy())
    assert predictions.split_epoch == 1
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
    flagged = predictions.index[groups_of(scored[1].agreement).numpy() == 4]
    assert np.array_equal(np.flatnonzero(np.load(folder.detection, allow_pickle=False)), flagged)


@pytest.mark.parametrize("method", ["bkd", "ce"])
def test_images_and_rate_stay_until_the_tipping_point(method, made_up_cifar, tmp_path, monkeypatch):
    """With the defaults of bkd and the compact network; ce has no tipping point to wait for."""
    augmented, rates, train_epoch = [], [], training.train_epoch
    loaders = results_of(monkeypatch, "make_loaders")

    def spy_train(state: Training, *arguments: object, **options: bool) -> EpochStats:
        augmented.append(loaders[-1].train.augmented)
        stats = train_epoch(state, *arguments, **options)
        rates.append(state.step.optimizer.param_groups[0]["lr"])  # of the last of two steps
        return stats

    monkeypatch.setattr(training, "train_epoch", spy_train)
    tips_at(monkeypatch, 0)
    data = ("--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file)
    words = f"--net compact --width 2 --method {method} --n_epoch 5 --lr 0.1 --warm_up 0"
    train(tmp_path, f"{words} --limit_train 256", *data)
    if method == "ce":
        assert augmented == [True] * 5
        assert rates == pytest.approx([0.1 * (4.5 - epoch) / 5 for epoch in range(5)])
    else:
        assert augmented == [False] * 3 + [True] * 2
        assert rates == pytest.approx([0.1] * 3 + [0.1 * 1.5 / 2, 0.1 * 0.5 / 2])
        assert loaders[-1].scored.augment is None


@pytest.fixture(scope="module")
def robust_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a run with such options, once: three naive epochs and a robust one; its folder."""

    @cache
    def run(options: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            tips_at(patch, 0)
            words = f"--dataset digits --n_epoch 4 --limit_train 200 {options}"
            return train(tmp_path_factory.mktemp("run"), words)[0].path

    return run


@pytest.mark.parametrize(
    "departure",
    [
        "--class_balance 1",
        "--target posterior",
        "--target posterior --ensemble_momentum 0.3",
        "--target_for both",
        "--compensation naive",
        "--mixup 1",
        "--strong_views 1",
        "--mixup 1 --strong_views 1",
        "--ema_decay 0.9",
        "--detection final",
    ],
)
def test_each_departure_changes_the_robust_phase_alone(departure: str, robust_run: Callable):
    """Compared with the same without its last option: nothing else may change."""
    folders = [robust_run(" ".join(departure.split()[:-2])), robust_run(departure)]
    before, after = map(metrics_of, folders)
    same = [one == other for one, other in zip(before, after, strict=True)]
    assert len(same) == 4 and all(same[:3])
    networks = [(folder / "teacher.pth.tar").read_bytes() for folder in folders]
    flags = [(folder / "detection.npy").read_bytes() for folder in folders]
    if departure.startswith("--detection"):
        assert all(same) and networks[0] == networks[1] and flags[0] != flags[1]
    else:
        assert networks[0] != networks[1] and flags[0] == flags[1]


def test_without_a_tipping_point_the_result_is_a_fallback(tmp_path: Path, capsys):
    folder, record = train(tmp_path, "--dataset digits --n_epoch 4 --limit_train 300")
    curve = [float(row["student_confidence"]) for row in metrics_of(folder.path)]
    assert record["tipping_point"] is None and record["fallback"] is True
    assert record["split_epoch"] == int(np.argmax(curve))
    assert f"the split at epoch {np.argmax(curve)}, where" in capsys.readouterr().out
    predictions = Predictions.read(folder.predictions)
    scored, group = predictions.index, predictions.split_group
    assert predictions.fallback and len(scored) == 300
    detection = np.load(folder.detection, allow_pickle=False)
    assert len(detection) == 1297 and np.array_equal(detection[scored], group == 4)
    assert not np.delete(detection, scored).any()
    train(tmp_path, "--dataset digits --method bkd+ --n_epoch 4 --limit_train 300")
    assert "15 planted labels were trained on to the end" in capsys.readouterr().out


def test_the_tipping_point_may_be_found_in_the_last_epoch(tmp_path: Path, monkeypatch):
    tips_at(monkeypatch, 0)
    folder, record = train(tmp_path, "--dataset digits --method bkd+ --n_epoch 3 --limit_train 300")
    assert record["tipping_point"] == 0 and record["epochs"] == 3
    assert {row["lr"] for row in metrics_of(folder.path)} == {"0.02"}


def test_what_is_predicted_for_mixed_images_says_nothing_of_a_label(robust_run: Callable):
    *naive, last = metrics_of(robust_run("--planted 0.05 --mixup 1"))
    assert last["agreed_wrong"] == "" == last["planted_memorized"]
    assert all(row["agreed_wrong"] and row["planted_memorized"] for row in naive)


def test_the_test_labels_change_nothing_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = "--dataset digits --n_epoch 2 --limit_train 200 --clean_test_freq 1"
    images, folders = load_images("digits", tmp_path), []
    for shift in (0, 1):
        test = images.test._replace(clean_labels=(images.test.clean_labels + shift) % 10)
        shifted = images._replace(test=test)
        monkeypatch.setattr(datasets, "load_images", lambda *_, images=shifted, **__: images)
        folders.append(train(tmp_path / str(shift), words)[0].path)
    for name in ("teacher.pth.tar", "best_student.pth.tar", "detection.npy", "predictions.npz"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name
    rows = [metrics_of(folder) for folder in folders]
    tests = [[row.pop("clean_test_accuracy") for row in each] for each in rows]
    assert rows[0] == rows[1] and tests[0] != tests[1]


def test_a_class_that_vanishes_in_the_robust_phase_is_warned_of_once(tmp_path, monkeypatch, capsys):
    epochs, train_epoch = iter(range(9)), training.train_epoch

    def forgetful(state: Training, *arguments: object, **options: bool) -> EpochStats:
        stats = train_epoch(state, *arguments, **options)
        if next(epochs) >= 7:
            for network in (state.step.pair.teacher, state.step.pair.student):
                network.linear.bias.data[3] = -100  # so that it never predicts class 3
        return stats

    monkeypatch.setattr(training, "train_epoch", forgetful)
    tips_at(monkeypatch, 3)
    folder, _ = train(tmp_path, "--dataset digits --n_epoch 9 --clean_test_freq 1 --lr 0.005")
    said = capsys.readouterr().out
    vanished = [row["vanished_classes"].split() for row in metrics_of(folder.path)]
    assert vanished[:7] == [[]] * 7 and all("3" in classes for classes in vanished[7:])
    assert said.count("warning: epoch 7: no image is predicted as '3' any more") == 1
    assert said.count("predicted as '3'") == 1


def test_nothing_to_split_flags_nothing(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    alike = torch.full((100,), 0.25)
    for module in (training, build):
        scores = noise_split.Scores(alike, torch.zeros(100, dtype=torch.long))
        monkeypatch.setattr(module, "score", lambda *_, scores=scores: scores)
    folder, record = train(tmp_path, "--dataset digits --n_epoch 1 --limit_train 100")
    said = capsys.readouterr().out
    assert "no split" in said and "the split flags 0 labels as wrong, 0 of them correctly" in said
    assert "; 0.0% are below Otsu's threshold; " in said  # which is no estimate of the noise rate
    assert record["group_sizes"] == [100, 0, 0, 0] and record["estimated_noise_rate"] == 0
    assert not np.load(folder.detection).any()


@devices
@pytest.mark.parametrize("steps", [1, 50])  # as on a CPU, and as on CUDA
def test_a_loss_that_is_not_finite_stops_the_run(device: str, steps: int, tmp_path, monkeypatch):
    """It is named before the weights, which are not finite either."""
    monkeypatch.setitem(epoch_statistics.STEPS_PER_CHECK, device, steps)
    words = f"--dataset digits --lr 1e30 --n_epoch 3 --limit_train 200 --device {device}"
    with pytest.raises(ValueError, match=r"epoch \d, step \d: the loss is (nan|inf)"):
        train(tmp_path, words)


def test_a_finished_run_is_not_repeated(digits_run, capsys):
    folder = RunFolder.of(digits_run).path
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    assert training.main(digits_run) == json.loads((folder / "training.json").read_text())
    assert capsys.readouterr().out.endswith("this run is finished\n")
    assert before == {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}


def test_a_folder_of_unknown_origin_is_not_overwritten(tmp_path: Path):
    file = tmp_path / "digits_worst_seed_0" / "teacher.pth.tar"
    file.parent.mkdir()
    file.write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"teacher\.pth\.tar of unknown origin"):
        train(tmp_path, "--dataset digits")
    assert [*file.parent.iterdir()] == [file] and file.read_bytes() == b"precious"


@pytest.mark.parametrize("method", ["bkd+", "ce"])
def test_measuring_writes_nothing(method: str, tmp_path: Path, capsys):
    words = f"--dataset digits --method {method} --ema_decay 0.9 --n_epoch 30 --measure_steps 2"
    assert all(0 < value < 60 for value in train(tmp_path, words)[1].values())
    said = capsys.readouterr().out
    assert " s a step of 64 images, " in said and "30 epochs of 21 steps: about " in said
    assert list(tmp_path.iterdir()) == []
