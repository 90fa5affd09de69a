"""The built-in data set: scikit-learn's digits with label noise like that of CIFAR-10N."""

import numpy as np
import torch
from numpy.typing import NDArray

from data.images import Split

TRAIN_COUNT = 1297
MEAN, STD = (0.3056,), (0.3758,)  # of the training images, as fractions of the brightest value

# Transition matrices of the real CIFAR-10N label sets in 1/10,000: rows are true classes, columns
# given ones, the classes permuted onto look-alike digits.
TRANSITIONS = {
    "aggre": (
        (9310, 124, 88, 64, 84, 68, 160, 30, 56, 16),
        (2, 9480, 46, 4, 0, 0, 104, 362, 0, 2),
        (8, 80, 9738, 6, 2, 6, 104, 56, 0, 0),
        (438, 172, 98, 8252, 64, 88, 198, 100, 574, 16),
        (376, 164, 112, 150, 8312, 48, 182, 72, 208, 376),
        (266, 108, 108, 200, 86, 9002, 128, 50, 52, 0),
        (146, 56, 318, 4, 8, 4, 9430, 30, 2, 2),
        (0, 732, 114, 0, 0, 2, 156, 8994, 0, 2),
        (214, 76, 38, 516, 42, 14, 104, 36, 8920, 40),
        (54, 26, 34, 46, 100, 0, 62, 12, 114, 9552),
    ),
    "rand1": (
        (8400, 152, 100, 214, 272, 230, 214, 64, 202, 152),
        (46, 8466, 86, 88, 58, 50, 142, 970, 46, 48),
        (72, 296, 8794, 62, 70, 66, 298, 214, 60, 68),
        (440, 152, 72, 7430, 188, 240, 158, 78, 1084, 158),
        (298, 152, 88, 192, 7600, 186, 148, 62, 504, 770),
        (386, 140, 100, 358, 196, 8270, 150, 54, 226, 120),
        (294, 274, 408, 86, 68, 82, 8484, 146, 94, 64),
        (46, 1258, 94, 50, 66, 54, 160, 8138, 80, 54),
        (236, 108, 38, 818, 166, 100, 140, 34, 8234, 126),
        (74, 118, 62, 90, 206, 72, 148, 44, 236, 8950),
    ),
    "worst": (
        (6320, 366, 236, 458, 594, 498, 554, 166, 476, 332),
        (152, 5922, 158, 264, 174, 136, 430, 2474, 154, 136),
        (218, 728, 6834, 144, 210, 164, 818, 480, 186, 218),
        (792, 344, 212, 4872, 426, 470, 396, 194, 2056, 238),
        (700, 326, 210, 402, 4882, 390, 394, 116, 1064, 1516),
        (840, 382, 204, 758, 508, 5936, 380, 130, 576, 286),
        (718, 656, 846, 192, 194, 188, 6502, 310, 228, 166),
        (174, 2820, 262, 206, 176, 120, 416, 5506, 176, 144),
        (528, 282, 122, 1830, 404, 274, 330, 134, 5802, 294),
        (242, 280, 174, 220, 512, 230, 398, 110, 618, 7216),
    ),
}


def load_digits() -> tuple[Split, Split, list[str]]:
    """Training split (1,297 images), test split (500) and class names; the same for every seed.

    Images are bytes [N, 1, 8, 8]: the 17 gray values spread over 0..255.
    """
    from sklearn import datasets  # takes a second, which CIFAR does not need

    digits = datasets.load_digits()
    gray = (digits.images * (255 / digits.images.max())).round().astype(np.uint8)[:, None]
    order = np.random.RandomState(0).permutation(len(gray))
    train, test = (
        Split(torch.from_numpy(gray[part]), torch.from_numpy(digits.target[part]))
        for part in (order[:TRAIN_COUNT], order[TRAIN_COUNT:])
    )
    return train, test, [str(name) for name in digits.target_names]


def noisy_digits(
    noise_type: str, clean_labels: NDArray[np.integer], seed: int
) -> NDArray[np.int64]:
    """Given labels [N], drawn class by class from the label set's transition matrix.

    Drawn from a generator of its own; numpy's global one is left as it is.
    """
    labels = np.array(clean_labels, dtype=np.int64)
    if noise_type == "clean":
        return labels
    generator = np.random.RandomState(seed)
    for true_class, row in enumerate(np.array(TRANSITIONS[noise_type]) / 10_000):
        members = np.flatnonzero(clean_labels == true_class)
        labels[members] = generator.choice(len(row), size=len(members), p=row / row.sum())
    return labels
