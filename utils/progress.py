"""Lines on stdout, and bars on stderr that make way for them."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm


def say(line: str) -> None:
    """Print a line at once, above the bars if there are any."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


class ProgressBars:
    """One bar for the run and one for the epoch; none where stderr is no terminal, or if quiet."""

    def __init__(self, epochs: int, first: int, miniters: int, quiet: bool):
        """`first`: the epoch it goes on from; `miniters`: batches between two updates."""
        self.options: dict[str, Any] = {"disable": True if quiet else None, "dynamic_ncols": True}
        self.miniters = miniters
        self.run = tqdm(total=epochs, initial=first, desc="run", unit="epoch", **self.options)

    def batches(self, batches: Iterable, epoch: int, first: int, count: int) -> Iterator:
        """The batches of an epoch, of which the `first` ones are done and `count` are all."""
        yield from tqdm(
            batches,
            desc=f"epoch {epoch}",
            initial=first,
            total=count,
            unit="batch",
            leave=False,
            position=1,
            miniters=self.miniters,
            mininterval=0,
            **self.options,
        )

    def epoch_done(self) -> None:
        """One more epoch of the run."""
        self.run.update()

    def close(self) -> None:
        """The run is over, or interrupted."""
        self.run.close()
