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
LABEL_SETS = ("aggre", "rand1", "worst", "noisy100")


class Published(NamedTuple):
    """One method's results on LABEL_SETS."""

    method: str
    accuracy: tuple[str, ...]  # ACCURACY_STATISTIC
    f1: tuple[str, ...] = ()  # F1_STATISTIC
    source: str = LEADERBOARD


PUBLISHED = (
    Published("cross-entropy", ("87.77 ± 0.38", "85.02 ± 0.65", "77.69 ± 1.55", "55.50 ± 0.66")),
    Published("Co-teaching", ("91.20 ± 0.13", "90.33 ± 0.13", "83.83 ± 0.13", "60.37 ± 0.27")),
    Published("ELR+", ("94.83 ± 0.10", "94.43 ± 0.41", "91.09 ± 1.60", "66.72 ± 0.07")),
    Published("DivideMix", ("95.01 ± 0.71", "95.16 ± 0.19", "92.56 ± 0.42", "71.13 ± 0.48")),
    Published("PES (semi)", ("94.66 ± 0.18", "95.06 ± 0.15", "92.68 ± 0.22", "70.36 ± 0.33")),
    Published("SOP+", ("95.61 ± 0.13", "95.28 ± 0.13", "93.24 ± 0.21", "67.81 ± 0.23")),
    Published(
        "ProMix",
        ("97.65 ± 0.19", "97.39 ± 0.16", "96.34 ± 0.23", "73.79 ± 0.28"),
        ("89.86", "93.88", "96.06", "79.87"),
        "IJCAI 2023; F1: challenge report",
    ),
)


def published_rows(dataset: str, labels: str) -> list[list[str]]:
    """Heading and a row for each method on that label set; empty where there is none.

    The digits' label sets have the names of CIFAR's but are others: nobody published on them.
    """
    if not dataset.startswith("cifar") or labels not in LABEL_SETS:
        return []
    column = LABEL_SETS.index(labels)
    rows = [
        [entry.method, entry.accuracy[column], entry.f1[column] if entry.f1 else "-", entry.source]
        for entry in PUBLISHED
    ]
    return [["method", "test acc. best epoch %", "F1 %", "source"], *rows]


def published_table() -> list[list[str]]:
    """Heading and a row for each method on the label sets of CIFAR-10."""
    names = LABEL_SETS[:3]
    rows = [
        [entry.method, *entry.accuracy[:3], " / ".join(entry.f1[:3]) or "-", entry.source]
        for entry in PUBLISHED
    ]
    heading = [f"{name} acc. %" for name in names]
    return [["method", *heading, f"F1 %: {' / '.join(names)}", "source"], *rows]
