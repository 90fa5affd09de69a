"""The corrected manifest of a run on own images: `python -m utils.clean RUN --take flagged`."""

import sys

from utils.review.clean import main

if __name__ == "__main__":
    sys.exit(main())
