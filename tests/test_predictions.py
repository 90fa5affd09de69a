"""predictions.npz, read and written, by earlier versions too; suspects.csv and detection.npy."""

from pathlib import Path

import numpy as np
import pytest

from data.digits import load_digits, noisy_digits
from tests.made_up_run import MadeUpRun, made_up_run, write_detection
from utils.files import read_arrays, read_columns, write_arrays
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions

EARLIER = {"split_agreement": "agreement", "split_prediction": "prediction", "split_group": "group"}
EARLIER_BASELINE = {"final_agreement": "agreement", "final_prediction": "prediction"}
EARLIER_MEAN = {"mean_agreement": "ensemble_agreement", "mean_prediction": "ensemble_prediction"}


@pytest.fixture
def run(tmp_path: Path) -> MadeUpRun:
    return made_up_run(tmp_path)


def with_all_results(predictions: Predictions) -> Predictions:
    """The predictions with results of the last epoch and of the mean, unlike the split's."""
    rows, agreement = np.arange(300), predictions.split_agreement
    return predictions._replace(
        final_agreement=agreement[::-1],
        final_prediction=(predictions.split_prediction + (rows % 7 == 0)) % 10,
        mean_agreement=agreement**2 * (rows % 2),
        mean_prediction=(predictions.split_prediction + (rows % 5 == 0)) % 10,
    )


@pytest.mark.parametrize("baseline", [False, True])
def test_what_is_written_is_read_also_by_earlier_names(run: MadeUpRun, tmp_path, baseline: bool):
    written = with_all_results(run.predictions)._replace(detection="final")
    if baseline:
        written = written._replace(**dict.fromkeys((*EARLIER, "split_epoch")))
        written = written._replace(low_mean=None, threshold=None, high_mean=None)
    path, earlier = tmp_path / "predictions.npz", tmp_path / "earlier.npz"
    written.write(path)
    names = EARLIER_MEAN | (EARLIER_BASELINE if baseline else EARLIER)
    arrays = {names.get(name, name): array for name, array in read_arrays(path).items()}
    write_arrays(earlier, **arrays, teacher_masked=written.label)  # which is there no more
    for file in (path, earlier):
        read = Predictions.read(file)
        for name, value in written._asdict().items():
            assert type(getattr(read, name)) is type(value), name
            assert np.array_equal(getattr(read, name), value), name
        assert read.chosen_name == "final" and bool(read.cuts) is not baseline
    assert list(read.detections) == ["split", "final", "ensemble"][baseline:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.arange(3)}, "label is not one number for each image"),
        ({"label": np.zeros(300)}, "label is not one number for each image"),
        ({"split_prediction": np.full(300, 10)}, "split_prediction has a class without a name"),
        ({"true_label": np.full(300, -2)}, "true_label has a class without a name"),
        ({"split_epoch": np.zeros(2)}, "split_epoch is not a single value"),
        ({"split_group": np.zeros(300, int)}, "split_group has values other than 1 to 4"),
        ({"suspect_index": np.full(64, 1)}, "suspect_index has images that were not scored"),
        ({"split_prediction": None}, "holds only a part of the arrays split_"),
        (dict.fromkeys((*EARLIER, "split_epoch")), "holds no detection result"),
        ({"index": None, "class_names": None}, "has no class_names, index; train the run again"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(run: MadeUpRun, change: dict, message: str):
    path = run.folder / "predictions.npz"
    run.predictions._replace(**change).write(path)
    with pytest.raises(ValueError, match=rf"{path}: {message}"):
        Predictions.read(path)


@pytest.mark.parametrize("choice", ["split", "final", "ensemble"])
def test_the_chosen_detection_orders_and_flags_the_suspects(run: MadeUpRun, tmp_path, choice: str):
    predictions = with_all_results(run.predictions)._replace(detection=choice)
    write_detection(tmp_path, predictions)
    index, label, names, true_label, *_ = predictions
    agreement, suggested = {
        "split": (predictions.split_agreement, predictions.split_prediction),
        "final": (predictions.final_agreement, predictions.final_prediction),
        "ensemble": (predictions.mean_agreement, predictions.mean_prediction),
    }[choice]
    flagged = predictions.split_group == 4 if choice == "split" else suggested != label
    order = sorted(range(300), key=lambda row: (agreement[row], row))
    columns = {
        "index": index,
        "given_label": label,
        "given_name": names[label],
        "suggested_label": suggested,
        "suggested_name": names[suggested],
        "agreement": np.array([f"{value:.6g}" for value in agreement]),
        "group": predictions.split_group,
        "flagged": flagged.astype(int),
        "true_label": true_label,
        "true_name": names[true_label],
    }
    expected = {name: [str(value) for value in array[order]] for name, array in columns.items()}
    assert read_columns(tmp_path / "suspects.csv") == expected
    detection = np.load(tmp_path / "detection.npy", allow_pickle=False)
    assert np.array_equal(np.flatnonzero(detection), index[flagged])
    kept = Predictions.read(tmp_path / "predictions.npz")
    assert np.array_equal(kept.suspect_index, index[order[:64]])


def test_the_baseline_suspects_what_it_predicts_otherwise(tmp_path: Path):
    suspects = read_columns(made_up_run(tmp_path, "--method", "ce").folder / "suspects.csv")
    assert set(suspects["group"]) == {""}
    pairs = zip(suspects["given_name"], suspects["suggested_name"], strict=True)
    assert suspects["flagged"] == [str(int(given != suggested)) for given, suggested in pairs]


def test_a_real_run_folder_is_complete_in_itself(digits_run):
    train, _, names = load_digits()
    run = RunFolder.of(digits_run)
    predictions, clean = Predictions.read(run.predictions), train.clean_labels.numpy()
    assert np.array_equal(predictions.true_label, clean)
    assert predictions.class_names.tolist() == names
    assert np.array_equal(predictions.label, noisy_digits("rand1", clean, 0))
    places = predictions.suspect_index
    assert len(places) == 64 and len(set(places.tolist())) == 64
    assert np.array_equal(predictions.suspect_images[..., 0], train.images[places, 0].numpy())
