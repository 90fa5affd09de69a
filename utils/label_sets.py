"""Which label sets there are. Imports nothing heavy: the option parser reads this too."""

from typing import NamedTuple


class LabelSets(NamedTuple):
    """The label sets of one data set."""

    default: str
    keys: dict[str, str]  # --noise_type -> key in the label file; the digits have no such file
    aliases: dict[str, str]  # another word for it -> --noise_type
    by_seed: bool = False  # whether they are drawn anew for each seed


LABEL_SETS = {
    "cifar10": LabelSets(
        "worst",
        {
            "clean": "clean_label",
            "aggre": "aggre_label",
            "worst": "worse_label",
            "rand1": "random_label1",
            "rand2": "random_label2",
            "rand3": "random_label3",
        },
        {"worse": "worst"},
    ),
    "cifar100": LabelSets("noisy100", {"clean100": "clean_label", "noisy100": "noisy_label"}, {}),
    "digits": LabelSets(
        "worst",
        {name: name for name in ("clean", "aggre", "worst", "rand1")},
        {"worse": "worst"},
        by_seed=True,
    ),
    "folder": LabelSets("given", {"given": "label"}, {}),  # own images, by folders or a manifest
}
