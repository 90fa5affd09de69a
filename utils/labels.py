"""The labels of a run's images, and what each image is for."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Tensors are typed Any: torch is imported where it is needed, the summary does without it.


class Positions(NamedTuple):
    """Positions in the full training set, from 0."""

    train: NDArray[np.int64]
    scored: NDArray[np.int64]
    val: NDArray[np.int64]


class Labels(NamedTuple):
    """Labels of the N images of the full training set, on the CPU."""

    given: Any  # [N], int64 tensor
    clean: Any  # [N], true classes, -1 where unknown
    class_names: list[str]
    positions: Positions
    test: Any | None = None  # of the test images: clean ones, of own images given ones
    judged: int = 0  # so many of the last images are own test and validation images

    @property
    def train(self) -> Any:
        """Given labels of the images that are trained on."""
        return self.given[self.positions.train]

    @property
    def val(self) -> Any:
        """Given labels of the validation images."""
        return self.given[self.positions.val]

    @property
    def sample(self) -> NDArray[np.int64]:
        """Positions of as many training images as are held out; none where none are."""
        train, _, val = self.positions
        return train[:0] if val is train else train[: len(val)]

    def class_counts(self) -> dict[str, int]:
        """Class name -> number of given labels."""
        counts = np.bincount(self.given.numpy(), minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def agreed_wrong(self, prediction: Any) -> float | None:
        """Percentage of wrong labels among those that a prediction [train] agrees with.

        None where no true label is known, or it agrees with none.
        """
        given, clean = self.train, self.clean[self.positions.train]
        known = clean >= 0
        agreed = (prediction == given) & known
        if not agreed.any():
            return None
        wrong = agreed & (given != clean)
        return 100 * (wrong.sum().item() / agreed.sum().item())


def labels_sha256(given: NDArray[np.int64], images: bytes = b"") -> str:
    """Digest of given labels [N] and of what tells own `images` from others."""
    return hashlib.sha256(given.tobytes() + images).hexdigest()
