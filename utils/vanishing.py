"""Classes that the pair ceases to predict: it happens in the robust phase at 40 % noise."""

from collections.abc import Iterable, Mapping
from typing import Any


class VanishingWatch:
    """For each set of images: which classes were ever predicted there, and which are no longer."""

    def __init__(self) -> None:
        self.met: dict[str, set[int]] = {}
        self.absent: dict[str, set[int]] = {}
        self.named: set[int] = set()  # those that have been told of

    def update(self, predicted: Mapping[str, Iterable[int]]) -> tuple[list[int], dict[int, str]]:
        """`predicted`: the classes predicted in an epoch, by the name of the images.

        Returns all classes that were met in some set and are, when last looked at, absent there;
        and those of them that never were before, each with such a set.
        """
        new: dict[int, str] = {}
        for images, classes in predicted.items():
            classes = set(classes)
            self.absent[images] = self.met.get(images, set()) - classes
            self.met[images] = self.met.get(images, set()) | classes
            new |= {each: images for each in self.absent[images] - self.named - new.keys()}
        self.named |= new.keys()
        return sorted(set().union(*self.absent.values())), dict(sorted(new.items()))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, in plain containers."""
        return {
            "met": {name: sorted(classes) for name, classes in self.met.items()},
            "absent": {name: sorted(classes) for name, classes in self.absent.items()},
            "named": sorted(self.named),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.met = {name: set(classes) for name, classes in state["met"].items()}
        self.absent = {name: set(classes) for name, classes in state["absent"].items()}
        self.named = set(state["named"])
