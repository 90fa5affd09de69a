"""Coverage-guided fuzzing of the readers, not part of the test suite: needs `pip install atheris`.

    python -m tests.fuzz labels -max_total_time=120

Options after the reader's name (see READERS in test_properties.py) are libFuzzer's.
"""

import sys
import tempfile
from pathlib import Path

import atheris

PARTS = ["data", "utils", "numpy.lib", "torch._weights_only_unpickler", "zipfile"]
with atheris.instrument_imports(include=PARTS):
    from tests.test_properties import READERS, SEEDS


def main() -> None:
    """Mutate whole files until the reader fails with anything but a line that names the file."""
    kind = sys.argv.pop(1)
    folder = Path(tempfile.mkdtemp())
    for number, content in enumerate(SEEDS[kind]):
        (folder / str(number)).write_bytes(content)
    path = folder.with_suffix(".file")

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            READERS[kind](path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)

    atheris.Setup([*sys.argv, str(folder)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
