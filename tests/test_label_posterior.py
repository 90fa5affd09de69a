"""What judges labels without having seen them: calibration, posterior, features, folds."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

import blind_knowledge_dist_training as training
import detection
import learning
from data.datasets import load_run
from data.own_images.judgments import read_features, read_probabilities
from data.splits import fold_positions
from models.label_posterior import (
    label_posterior,
    mostly_wrong,
    suitable_structured_noise,
    uniform_models,
    uniform_noise,
)
from models.linear_probe import backbone_features, out_of_fold
from tests.conftest import training_options
from tests.own_images import NAMES, mislabel, write_folder
from utils.files import read_columns
from utils.options.evaluation import detection_parser, learning_parser
from utils.plots import draw as plots
from utils.review import clean
from utils.run_folder import predictions_writer
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions


def draw(count: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right probabilities [N, 10], true classes drawn from them, and noisy labels."""
    generator = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(count, 10, generator=generator)).softmax(1)
    true = probabilities.multinomial(1, generator=generator).squeeze(1)
    drawn = torch.rand(count, generator=generator) < noise
    return (
        probabilities,
        true,
        torch.where(drawn, torch.randint(10, (count,), generator=generator), true),
    )


@pytest.mark.parametrize("noise", [0.02, 0.3])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_posterior_is_the_share_of_right_labels(exponent: float, noise: float):
    probabilities, true, labels = draw(8000, noise)
    said = probabilities ** (1 / exponent)
    said /= said.sum(1, keepdim=True)
    found = uniform_noise(said, labels)
    assert found.exponent == pytest.approx(exponent, rel=0.1)
    assert found.transition[0, 1] == pytest.approx(noise / 10, abs=0.004)
    joint = found.joint(said, labels)
    at_label = (joint / joint.sum(1, keepdim=True)).gather(1, labels[:, None]).squeeze(1)
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        rows = (at_label >= low) & (at_label < low + 0.2)
        right = (true == labels)[rows].double().mean()
        error = 3 * (0.25 / rows.sum()).sqrt() + 0.02
        assert rows.sum() > 10 and abs(right - at_label[rows].mean()) < error


@pytest.mark.parametrize("classes", [2, 10])
def test_small_gaps_may_mean_less_than_they_say(classes: int):
    generator, rows = torch.Generator().manual_seed(0), torch.arange(8000)
    gaps = 8 * torch.rand(8000, generator=generator).double()  # of two classes; others: 20
    right = torch.sigmoid(0.08 * gaps**2)  # less than the sigmoid of the gap below 12
    order = torch.rand(8000, classes, generator=generator).argsort(1)
    mistaken = (torch.rand(8000, generator=generator) > right).long()
    true, logs = order[rows, mistaken], torch.full((8000, classes), -20.0).double()
    logs[rows, order[:, 0]], logs[rows, order[:, 1]] = 0.0, -gaps
    drawn = torch.rand(8000, generator=generator) < 0.3
    anew = torch.randint(classes, (8000,), generator=generator)
    labels, said = torch.where(drawn, anew, true), logs.softmax(1)
    found, wrong = uniform_models(said, labels), labels != true
    power, exponent, noise = (
        sum(weight * float(value) for (weight, _), value in zip(found, values, strict=True))
        for values in zip(
            *((m.power, m.exponent, m.transition[0, 1]) for _, m in found), strict=True
        )
    )
    assert sum(weight for weight, _ in found) == pytest.approx(1)
    assert 1.7 < power < 2.5 and noise == pytest.approx(0.3 / classes, abs=0.02)
    assert exponent == pytest.approx(0.08 * 4, rel=0.2)  # at the median gap
    flagged = label_posterior(said, labels, from_scratch=True).argmax(1) != labels
    assert wrong[flagged].double().mean() > 0.6 and flagged[wrong].double().mean() > 0.3
    plain = uniform_noise(said, labels)
    best = max(found, key=lambda each: each[0])[1]
    more = [each.log_likelihoods(said, labels).sum() for each in (best, plain)]
    assert more[0] > more[1] + 10


def test_the_posterior_is_bayes_rule():
    probabilities, _, labels = draw(50, 0.9)  # so few agree that noise counts as uniform
    ratios = probabilities.double() / probabilities.double().amax(1, keepdim=True)
    typical = (-ratios.log().sort(1).values[:, -2]).median()  # gap of the two likeliest classes
    posterior, offsets = torch.zeros(50, 10).double(), []
    for weight, found in uniform_models(probabilities, labels):
        noise, logs = 10 * found.transition[0, 1], []
        for row, label in enumerate(labels.tolist()):
            gaps = -ratios[row].log() / typical
            prior = (-found.exponent * typical * gaps**found.power).exp()
            given = [(1 - noise) * (k == label) + noise / 10 for k in range(10)]
            joint = prior / prior.sum() * torch.tensor(given, dtype=torch.double)
            posterior[row] += weight * joint / joint.sum()
            logs.append(joint.sum().log())
        torch.testing.assert_close(found.log_likelihoods(probabilities, labels), torch.stack(logs))
        log_prior = -((min(0, math.log(found.exponent)) / 0.4) ** 2) / 2
        offsets.append(math.log(weight) - float(sum(logs)) - log_prior)
    assert len(offsets) > 10 and max(offsets) - min(offsets) < 1e-4
    torch.testing.assert_close(label_posterior(probabilities, labels), posterior)


def test_noise_that_follows_similarity_is_found_where_labels_speak_for_it():
    probabilities, _, labels = draw(8000, 0.1)
    assert suitable_structured_noise(probabilities, labels) is None
    probabilities, true, _ = draw(4000, 0)
    probabilities = probabilities.double() ** 3
    probabilities /= probabilities.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(1)
    true = probabilities.multinomial(1, generator=generator).squeeze(1)
    wrong = torch.rand(4000, generator=generator) < 0.3
    pairs = torch.where(wrong, (true + 1) % 10, true)  # each class is taken for its neighbor
    sure = 0.9 * probabilities + 0.1 * probabilities.roll(1, 1)  # a network learns part of it
    said = (0.4 * sure.log()).softmax(1)  # and is less sure
    found = suitable_structured_noise(said, pairs).transition
    assert (found.diagonal(1) > 0.15).all() and found.diagonal().min() > 0.6
    flagged = label_posterior(said, pairs).argmax(1) != pairs
    assert wrong[flagged].double().mean() > 0.7 and flagged[wrong].double().mean() > 0.7
    few = label_posterior(said, pairs, from_scratch=True).argmax(1) != pairs
    assert few.sum() < flagged.sum() / 10  # such networks confuse similar classes by themselves
    kept = label_posterior(probabilities, true).argmax(1) == true  # not where there is none
    assert kept.double().mean() > 0.98
    for each in sure, said[torch.randperm(4000, generator=generator)]:
        assert suitable_structured_noise(each, pairs) is None


def test_regression_never_sees_the_label_that_it_judges():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (60,), generator=generator)
    memory = torch.eye(60)  # by which a model that was trained on an image knows its label
    folds = [fold_positions(labels, 5, fold, seed=0) for fold in range(5)]
    probabilities = out_of_fold(memory, labels, [folds])
    torch.testing.assert_close(probabilities.sum(1), torch.ones(60).double())
    assert (probabilities.gather(1, labels[:, None]) < 0.7).all()
    centers = torch.tensor([[-6.0, 0], [6, 0]])[labels] + torch.randn(60, 2, generator=generator)
    given = torch.where(torch.arange(60) < 6, 1 - labels, labels)  # six are wrong
    wrong = out_of_fold(centers, given, [folds]).argmax(1) != given
    assert wrong.tolist() == [True] * 6 + [False] * 54
    alone = torch.tensor([0] * 9 + [1])  # the only one of its class
    folds = [fold_positions(alone, 5, fold, seed=0) for fold in range(5)]
    judged = out_of_fold(torch.randn(10, 2, generator=generator), alone, [folds])
    assert judged[9].tolist() == [1, 0]


def test_features_are_what_the_last_layer_of_a_backbone_takes(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    network = models.resnet18().eval()  # without the weights, which would be downloaded
    monkeypatch.setattr(models, "get_model", lambda name, weights: network)
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    features = backbone_features("resnet18", images, torch.device("cpu"))
    network.fc = nn.Identity()
    prepared = models.get_model_weights("resnet18").DEFAULT.transforms()(images)
    torch.testing.assert_close(features, network(prepared))
    with pytest.raises(ValueError, match="--backbone resnet0: no network of torchvision"):
        backbone_features("resnet0", images, torch.device("cpu"))
    monkeypatch.setattr(models, "get_model", lambda name, weights: nn.Flatten())
    with pytest.raises(ValueError, match="has no linear layer"):
        backbone_features("squeezenet1_0", images, torch.device("cpu"))


def test_what_other_programs_know_is_read_by_file_name(tmp_path: Path):
    path, names = tmp_path / "given.npz", ["b.png", "a.png"]
    features = np.arange(6.0).reshape(3, 2)
    np.savez(path, file_name=["a.png", "b.png", "c.png"], features=features)
    assert read_features(path, names).tolist() == [[2, 3], [0, 1]]
    probabilities = np.array([[0.25, 0.75], [1, 0], [0.5, 0.5]])
    columns = {"probabilities": probabilities, "class_names": ["dog", "cat"]}
    np.savez(path, file_name=["a.png", "b.png", "c.png"], **columns)
    assert read_probabilities(path, names, ["cat", "dog"]).tolist() == [[0, 1], [0.75, 0.25]]
    for message, change in {
        "has no features": {},
        "no row for 'b.png' .* such as 'a.png'": {"features": features[:1], "file_name": ["a.png"]},
        "two rows for 'a.png'": {"features": features, "file_name": ["a.png", "b.png", "a.png"]},
        "not a row of numbers": {"features": features[:2]},
        "not finite": {"features": features * np.nan},
        "too large": {"features": features * 1e300},
        "class_names must be .* are 'bird', 'cat'": {"class_names": ["dog", "bird"]},
        "or no columns": {"features": features[:, :0]},
        "class_names .* a column each": {"class_names": "dog"},
        "negative somewhere": {"probabilities": probabilities - 0.5},
        "all probabilities are 0 or 1": {"probabilities": np.eye(2)[[0, 1, 1]]},
    }.items():
        np.savez(path, **({"file_name": ["a.png", "b.png", "c.png"]} | columns | change))
        read = read_probabilities if {*change} & {*columns} else read_features
        arguments = (["cat", "dog"],) if read is read_probabilities else ()
        with pytest.raises(ValueError, match=message):
            read(path, names, *arguments)
    np.savez(path, file_name=["a.png", "b.png", "a.png"], features=features[[0, 1, 0]])
    assert read_features(path, names).tolist() == [[2, 3], [0, 1]]
    np.save(tmp_path / "one.npy", features)
    for name, message in {"gone.npz": "no such file; name an", "one.npy": "a single array"}.items():
        with pytest.raises((ValueError, OSError), match=f"{name}: .*{message}"):
            read_features(tmp_path / name, names)


def test_folds_part_the_images_of_every_class():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 3)
    folds = [fold_positions(labels, 5, fold, seed=1) for fold in range(5)]
    assert sorted(np.concatenate([each.val for each in folds])) == list(range(63))
    for train, scored, val in folds:
        assert sorted([*train, *val]) == scored.tolist() == list(range(63))
        sizes = np.bincount(labels[val], minlength=3)
        assert sizes[0] == 10 and sizes[1] == 2 and sizes[2] <= 1
    with pytest.raises(ValueError, match="--folds 64: there are 63 images"):
        fold_positions(labels, 64, 0, seed=1)


@pytest.mark.parametrize("few", [False, True])
def test_each_label_is_judged_by_networks_that_have_not_seen_it(
    few: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    rows = sorted(write_folder(tmp_path / "pets", wrong=0.15)) + mislabel(tmp_path / "pets")
    if not few:
        monkeypatch.setattr(predictions_writer, "FEWEST_IMAGES", 100)
    words = ["--images", tmp_path / "pets", "--results_dir", tmp_path, "--data_dir", tmp_path]
    words += ["--method", "ce", "--n_epoch", 6, "--width", 4, "--batch_size", 16, "--folds", 3]
    args = training_options("--dataset", "folder", *words)
    record, folder = training.main(args), RunFolder.of(args)
    out = capsys.readouterr().out
    assert out.count("120 training images of 3 classes") == 1  # for all folds
    found = Predictions.read(folder.predictions)
    assert found.chosen_name == "posterior" and found.held_out.sum() == 40 + 15
    judged = torch.from_numpy(found.teacher_probabilities.copy())
    for fold in (1, 2):
        other = Predictions.read(folder.fold(fold).predictions)
        judged[other.held_out] = torch.from_numpy(other.teacher_probabilities[other.held_out])
        assert not folder.fold(fold).review.exists()
    posterior = label_posterior(judged, torch.from_numpy(found.label), from_scratch=True)
    assert np.array_equal(found.posterior_prediction, posterior.argmax(1))
    wrong = np.array([label != true for _, label, true in rows])
    assert wrong[-15:].sum() == 1 and found.label.tolist() == [NAMES.index(row[1]) for row in rows]
    flags = [flag == "1" for flag in read_columns(folder.suspects)["flagged"]]
    if few:
        assert not any(flags) and "120 images are too few" in out
        return
    assert (found.chosen.flagged == wrong).mean() > 0.9 and record["lost_classes"] == []
    assert found.chosen.flagged[-15:].tolist() == wrong[-15:].tolist()
    assert f"{sum(flags)} labels are flagged as wrong: about" in out
    assert f"{sum(flags)} labels are flagged" in folder.review.read_text(encoding="utf-8")
    assert training.main(args) == record and "fold 1" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a run with other options"):
        training.main(training_options("--dataset", "folder", *words, "--lr", 0.1))
    for more in ((), ("--lr", 0.1)):  # the same run again, and another one in its place
        training.main(training_options("--dataset", "folder", *words, *more, "--restart"))
        said = capsys.readouterr().out
        assert said.count("the run that was here is now") == 1 and "fold 1 of 3" in said
        assert folder.fold(2).training.exists() and folder.training.exists()
    assert len(list((tmp_path / "replaced").iterdir())) == 2


@pytest.mark.parametrize("kind", ["features", "probabilities"])
def test_labels_are_judged_by_what_is_given(kind: str, tmp_path: Path, capsys, monkeypatch):
    drawn: list[Path] = []
    monkeypatch.setattr(plots, "write_plots", drawn.append)
    rows = sorted(write_folder(tmp_path / "pets", wrong=0.08)) + mislabel(tmp_path / "pets")
    (tmp_path / "pets" / "train" / NAMES[0] / "broken.png").write_bytes(b"")
    places = torch.tensor([NAMES.index(true) for _, _, true in rows])
    known = nn.functional.one_hot(places, 3) * 0.85 + 0.05
    known = {kind: known.numpy(), "file_name": [name for name, *_ in rows], "class_names": NAMES}
    np.savez(tmp_path / "given.npz", **known)
    words = ["--dataset", "folder", "--images", tmp_path / "pets", "--results_dir", tmp_path]
    words += ["--data_dir", tmp_path, f"--{kind}", tmp_path / "given.npz"]
    words += ["--folds", 3] if kind == "features" else []
    record = training.main(training_options(*words))
    folder = RunFolder(tmp_path / "folder_pets_seed_0_features")
    found, out = Predictions.read(folder.predictions), capsys.readouterr().out
    assert record == {"epochs": 0, "lost_classes": []} and "broken.png" in out
    assert folder.options()["folds"] == (3 if kind == "features" else 5)
    wrong = np.array([label != true for _, label, true in rows])
    assert found.chosen.agreement[wrong].max() < found.chosen.agreement[~wrong].min()
    if kind == "probabilities":
        assert np.array_equal(found.chosen.flagged, wrong)
        assert clean.main([str(folder), "--take", "flagged", "--out", str(tmp_path / "o.csv")]) == 0
        assert sum(map(bool, read_columns(tmp_path / "o.csv")["changed_from"])) == wrong.sum()
    assert folder.review.exists() and folder.image_warnings.exists() and drawn == [folder.path]
    training.main(training_options(*words, "--restart"))
    assert "the run that was here is now" in capsys.readouterr().out
    arguments = ["--run_dir", str(folder)]
    assert detection.main(detection_parser().parse_args(arguments))["flagged"] == sum(
        found.chosen.flagged
    )
    with pytest.raises(ValueError, match="--method features trains no network"):
        learning.main(learning_parser().parse_args(arguments))


def test_limited_images_are_not_folded(tmp_path: Path):
    write_folder(tmp_path / "pets", test=0)
    words = ["--dataset", "folder", "--images", tmp_path / "pets", "--data_dir", tmp_path]
    words += ["--results_dir", tmp_path, "--n_epoch", 1, "--width", 4, "--limit_train", 60]
    args = training_options(*words)
    training.main(args)
    predictions = Predictions.read(RunFolder.of(args).predictions)
    assert args.folds == 0 and args.detection == "final" and len(predictions.index) == 60


def test_a_share_for_validation_is_refused_beside_folds(tmp_path: Path):
    write_folder(tmp_path / "pets", test=0)
    words = ["--images", tmp_path / "pets", "--data_dir", tmp_path, "--results_dir", tmp_path]
    args = training_options("--dataset", "folder", *words, "--val_ratio", 0.3)
    with pytest.raises(ValueError, match=r"--val_ratio 0\.3: each of --folds 5 holds out"):
        training.main(args)
    args = training_options("--dataset", "folder", *words, "--val_ratio", 0.3, "--folds", 0)
    _, labels = load_run(args)
    assert len(labels.positions.val) == 36


def test_a_lost_class_is_not_flagged_as_a_whole():
    label = np.repeat([0, 1, 2], 20)
    predictions = Predictions(np.arange(60), label, np.array(NAMES))
    posterior = np.full((60, 3), 0.1)
    posterior[np.arange(60), label] = 0.8
    posterior[:5] = posterior[20:31] = (0.1, 0.1, 0.8)  # a few of class 0, most of class 1
    none, one = np.zeros(3, bool), np.arange(3) == 1
    judged = predictions.with_posterior(posterior, none, flag=True)
    assert judged.lost_classes() == [1]
    assert np.flatnonzero(judged.posterior_flagged).tolist() == [0, 1, 2, 3, 4]
    assert not predictions.with_posterior(posterior, one, flag=False).posterior_flagged.any()
    assert f"warning: class {NAMES[1]!r} is lost" in predictions_writer.posterior_lines(judged)[-1]
    judged = predictions.with_posterior(posterior, one, flag=True)  # but if they are surely wrong
    assert np.flatnonzero(judged.posterior_flagged).tolist() == [*range(5), *range(20, 31)]
    assert judged.lost_classes() == [1]
    said = predictions_writer.posterior_lines(judged)[-1]
    assert f"warning: most of the 20 labels of class {NAMES[1]!r} look wrong" in said


def test_wrong_labels_of_a_rare_class_are_told_from_a_class_that_is_not_known():
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([0] * 300 + [1] * 300 + [2] * 300 + [3] * 20)
    labels = true.clone()
    labels[:10] = labels[300:310] = labels[600:610] = 3  # 30 of the 50 labels of class 3 are wrong

    def found(seen: torch.Tensor, labels: torch.Tensor) -> list[int]:
        logits = 3 * nn.functional.one_hot(seen, 4) + torch.randn(920, 4, generator=generator)
        return mostly_wrong(logits.softmax(1), labels).nonzero().flatten().tolist()

    assert found(true, labels) == [3]
    assert found(true, true) == []
    twin = torch.where(true == 3, 0, true)  # what does not know class 3 takes it for class 0
    assert found(twin, true) == []
    labels[:30] = 3
    labels[300:310], labels[600:610] = 1, 2  # wrong on images of one class alone
    assert found(true, labels) == [3]
    assert found(twin, labels) == []
