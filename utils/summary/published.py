"""Published results on CIFAR-N, each with its statistic and its source; none of them is ours."""

from typing import NamedTuple

ACCURACY_STATISTIC = (
    "mean ± standard deviation of the clean test accuracy in %, each run at its best test epoch, "
    "trained on all 50,000 images"
)
F1_STATISTIC = "F1 in % of the labels flagged as wrong, over all 50,000 training images"
LEADERBOARD = "CIFAR-N leaderboard"
RERUNS = (
    "Independent re-runs of the leaderboard: ReScience C 11(1), 2026, doi 10.5281/zenodo.18401497."
)


class Published(NamedTuple):
    """One method's results, by label set."""

    method: str
    accuracy: dict[str, tuple[float, float]]  # mean and standard deviation, ACCURACY_STATISTIC
    source: str
    f1: dict[str, float] | None = None  # F1_STATISTIC
    f1_source: str = ""


def _by_label_set(*results: tuple[float, float]) -> dict[str, tuple[float, float]]:
    return dict(zip(("aggre", "rand1", "worst", "noisy100"), results, strict=True))


PUBLISHED = (
    Published(
        "cross-entropy",
        _by_label_set((87.77, 0.38), (85.02, 0.65), (77.69, 1.55), (55.50, 0.66)),
        LEADERBOARD,
    ),
    Published(
        "Co-teaching",
        _by_label_set((91.20, 0.13), (90.33, 0.13), (83.83, 0.13), (60.37, 0.27)),
        LEADERBOARD,
    ),
    Published(
        "ELR+",
        _by_label_set((94.83, 0.10), (94.43, 0.41), (91.09, 1.60), (66.72, 0.07)),
        LEADERBOARD,
    ),
    Published(
        "DivideMix",
        _by_label_set((95.01, 0.71), (95.16, 0.19), (92.56, 0.42), (71.13, 0.48)),
        LEADERBOARD,
    ),
    Published(
        "PES (semi)",
        _by_label_set((94.66, 0.18), (95.06, 0.15), (92.68, 0.22), (70.36, 0.33)),
        LEADERBOARD,
    ),
    Published(
        "SOP+",
        _by_label_set((95.61, 0.13), (95.28, 0.13), (93.24, 0.21), (67.81, 0.23)),
        LEADERBOARD,
    ),
    Published(
        "ProMix",
        _by_label_set((97.65, 0.19), (97.39, 0.16), (96.34, 0.23), (73.79, 0.28)),
        "ProMix, IJCAI 2023",
        {"aggre": 89.86, "rand1": 93.88, "worst": 96.06, "noisy100": 79.87},
        "ProMix's challenge report",
    ),
)


def published_rows(dataset: str, noise_type: str) -> list[list[str]]:
    """Heading and one row for each method with a result on that label set; empty where none has.

    The digits' label sets have the names of CIFAR's but are others: nobody published on them.
    """
    if not dataset.startswith("cifar"):
        return []
    rows = []
    for entry in PUBLISHED:
        if noise_type not in entry.accuracy:
            continue
        mean, deviation = entry.accuracy[noise_type]
        f1, source = "-", entry.source
        if entry.f1:
            f1, source = f"{entry.f1[noise_type]:.2f}", f"{source}; F1: {entry.f1_source}"
        rows.append([entry.method, f"{mean:.2f} ± {deviation:.2f}", f1, source])
    return [["method", "test acc. best epoch %", "F1 %", "source"], *rows] if rows else []
