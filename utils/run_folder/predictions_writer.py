"""Writes a run's detection result: detection.npy, what it rests on, and the suspect labels."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.console import logged_to, say
from utils.files import in_words, write_array, write_json, write_text, write_whole
from utils.labels import Labels, labels_sha256
from utils.lock import locked
from utils.manifest import as_file
from utils.review.page import review_page
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import MOST_FLAGGED, UNKNOWN, Predictions
from utils.run_folder.suspects import class_examples, most_suspect, suspects_csv

LITTLE_AGREED = (
    "warning: what judges the labels agrees with {:.0%} of them alone: it has learned little, or "
    "most are wrong; many wrong ones are not seen"
)
FEWEST_IMAGES = 1000  # on which networks that begin from nothing learn enough to flag labels
WARNINGS_SAID = 10
CLASSES_NAMED = 20  # those with the most flagged labels
SUSPECTS_SHOWN = 64  # images that a run folder keeps for its plot


class PredictionsWriter(NamedTuple):
    """Writes the results of a run for its S scored images, the trained ones among them."""

    folder: RunFolder
    detection: str  # name of the result that flags, see `Predictions.detections`
    labels: Labels
    images: NDArray[np.uint8]  # the full set, [images, channels, height, width]
    own: Any = None  # see OwnSource of data/images.py; None: not the user's own images

    @property
    def trained_rows(self) -> NDArray[np.int64]:
        """The trained images' rows among the scored."""
        return np.searchsorted(self.labels.positions.scored, self.labels.positions.train)

    def write(
        self,
        split: Any = None,
        final: Any = None,
        mean: Any = None,
        probabilities: Mapping[str, Any] | None = None,
        judgment: Any = None,
    ) -> Predictions:
        """Write and return what is known so far: tensors, see models/noise_split.py.

        `split`: a Split, `final` and `mean`: Scores, each of the S images; `probabilities` [S, C]
        by the network's name; `judgment`: see models/label_posterior.py.
        """
        results = {"split": split and split.scores, "final": final, "mean": mean}
        tensors = {
            f"{name}_{key}": values
            for name, scores in results.items()
            for key, values in (scores._asdict() if scores else {}).items()
        }
        for name, values in (probabilities or {}).items():
            tensors[f"{name}_probabilities"] = values
        single = {}
        if split:
            tensors["split_group"] = split.group
            single = {"split_epoch": split.epoch, "fallback": split.fallback}
            single |= split.cuts._asdict() if split.cuts else {}
        scored = self.labels.positions.scored
        clean = self.labels.clean[scored].numpy()
        tested = scored >= len(self.labels.given) - self.labels.judged
        predictions = Predictions(
            scored,
            self.labels.given[scored].numpy(),
            np.array(self.labels.class_names),
            true_label=clean if (clean != UNKNOWN).any() else None,
            held_out=~np.isin(scored, self.labels.positions.train),
            tested=tested if tested.any() else None,
            detection=self.detection,
            **{key: values.cpu().numpy() for key, values in tensors.items()},
            **single,
        )
        if judgment is not None:
            flag = not too_few(predictions)
            posterior, mostly_wrong, agreement = (each.numpy() for each in judgment)
            predictions = predictions.with_posterior(posterior, mostly_wrong, flag=flag)
            lines = posterior_lines(predictions)
            if 1 - agreement > MOST_FLAGGED:
                lines.append(LITTLE_AGREED.format(agreement))
            for line in lines:
                say(line)
        return write_predictions(self.folder, predictions, self.images, self.own)

    def out_of_fold(self, folds: int, probabilities: Any) -> Any:
        """Probabilities [S, C] in which networks that were trained without an image judge it.

        `probabilities` [S, C]: by the run's own networks, which those of the first fold keep.
        """
        found = probabilities.cpu().clone()
        for fold in range(1, folds):
            judged = Predictions.read(self.folder.fold(fold).predictions)
            rows, of_fold = judged.out_of_sample()
            found[rows] = found.new_tensor(of_fold)
        return found

    def log_warnings(self) -> None:
        """Say the first of own images' warnings; all are in a file of the run folder."""
        lines, path = self.own.warnings if self.own else [], self.folder.image_warnings
        if not lines:
            return
        write_text(path, "".join(f"{line}\n" for line in lines))
        for line in lines[:WARNINGS_SAID]:
            say(f"warning: {line}")
        if (more := len(lines) - WARNINGS_SAID) > 0:
            say(f"warning: and {more} more; all are listed in {path}")

    def write_judged(self, description: Description, judgment: Any) -> dict[str, Any]:
        """Write the run folder of labels that are judged without a run; returns training.json.

        `judgment`: as for `write`.
        """
        folder = self.folder
        folder.make()
        with locked(folder.path), logged_to(folder.log("training")):
            self.log_warnings()
            write_json(folder.args, description.record())
            predictions = self.write(judgment=judgment)
            record = {"epochs": 0, "lost_classes": predictions.lost_classes()}
            write_json(folder.training, record)
            self.write_page()
        return record

    def write_page(self) -> None:
        """Write review.html from the files of a finished run on own images.

        A page that cannot be made is one line: the run is whole without it.
        """
        folder, own = self.folder, self.own
        try:
            predictions = Predictions.read(folder.predictions)
            rows = most_suspect(predictions, own, folder.path)
            place = own.sha256.encode() + bytes(folder.path.resolve())
            key = labels_sha256(own.labels.numpy(), place)
            classes, examples = predictions.class_names.tolist(), class_examples(predictions, own)
            about = classes, key, examples, own.files.same, posterior_lines(predictions)
            page = review_page(folder.path.name, own.manifest, rows, *about)
            write_text(folder.review, page)
        except Exception as error:  # of Pillow, jinja2, the disk: no page may cost a run
            say(f"warning: {folder.review}: not made ({in_words(error)}); give the command again")
        else:
            say(f"{folder.review}: the {len(rows)} most suspect labels, to be reviewed")


def write_predictions(
    folder: RunFolder,
    predictions: Predictions,
    images: NDArray[np.uint8],
    own: Any = None,
) -> Predictions:
    """Write predictions.npz with the most suspect images, suspects.csv, and last detection.npy.

    For own images also manifest.csv. `images`: as in `PredictionsWriter`; those that are not scored
    are not flagged.
    """
    suspects = predictions.index[predictions.suspect_rows()[:SUSPECTS_SHOWN]]
    pixels = images[suspects].transpose(0, 2, 3, 1)
    predictions = predictions._replace(suspect_index=suspects, suspect_images=pixels)
    predictions.write(folder.predictions)
    write_text(folder.suspects, suspects_csv(predictions, own))
    if own:
        json_lines = own.manifest.json_lines
        folder.manifest_as(json_lines=not json_lines).unlink(missing_ok=True)
        write_whole(folder.manifest_as(json_lines=json_lines), as_file(own.manifest))
    detection = np.zeros(len(images), dtype=bool)
    detection[predictions.index] = predictions.chosen.flagged
    write_array(folder.detection, detection)
    return predictions


def too_few(predictions: Predictions) -> bool:
    """Whether networks that began from nothing have seen too few images to flag labels."""
    return predictions.teacher_probabilities is not None and _trained(predictions) < FEWEST_IMAGES


def _trained(predictions: Predictions) -> int:
    """How many images there are to learn from."""
    return len(predictions.label) - (0 if predictions.tested is None else predictions.tested.sum())


def posterior_lines(predictions: Predictions) -> list[str]:
    """What the posterior flags, of each class too, what that mends, and which classes are lost."""
    if predictions.posterior_flagged is None:
        return []
    names, label = predictions.class_names.tolist(), predictions.label
    flagged, suggested = predictions.posterior_flagged, predictions.posterior_suggested
    if too_few(predictions):
        return [
            f"{_trained(predictions)} images are too few to learn from: nothing is flagged, and "
            "even the most suspect labels are often right; with --features or --backbone they are "
            "judged better"
        ]
    wrong = 1 - predictions.posterior_agreement
    counts = [(int(flagged[label == k].sum()), int((label == k).sum())) for k in range(len(names))]
    most = sorted(zip(counts, names, strict=True), key=lambda each: -each[0][0])[:CLASSES_NAMED]
    return [
        f"{flagged.sum()} labels are flagged as wrong: about {wrong[flagged].sum():.0f} of them "
        f"are, and {suggested[flagged].sum():.0f} suggestions right; of all labels about "
        f"{wrong.mean():.1%} are wrong",
        f"by class: {', '.join(f'{name} {some} of {all_}' for (some, all_), name in most)}",
        *(
            f"warning: most of the {counts[k][1]} labels of class {names[k]!r} look wrong; as many "
            "are on images that are surely of other classes, so they are flagged"
            if counts[k][0]
            else f"warning: class {names[k]!r} is lost: what judges the labels contradicts most of "
            f"its {counts[k][1]} or never predicts it, so none of them is flagged"
            for k in predictions.lost_classes()
        ),
    ]
