"""How a script starts and ends: Ctrl-C during its imports, and errors in its input."""

import logging
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.has_packages import installed, is_there

TOP = Path(__file__).parents[1]
LESS_MEMORY = (
    "; try a smaller --batch_size or --width, --precision bf16 where there is that, or another "
    "--device"
)

# The scripts import this module before all others. While torch is imported, which takes seconds,
# Ctrl-C ends them without a traceback; `run_script` gives it back to Python.
_is_main = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve().parent == TOP
if _is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if _is_main:  # before an older one fails at something that it lacks
    for _line in (TOP / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if _line.startswith(("torch", "numpy")) and not is_there(_line):
            _there = installed(_line.split(">")[0]) or "no such package"
            _words = f"error: needs {_line}, found {_there}; try bash run.sh setup"
            print(f"{Path(sys.argv[0]).name}: {_words}", file=sys.stderr)
            sys.exit(2)


def run_script(main: Callable[[Namespace], Any], args: Namespace) -> Any:
    """What `main` returns of the options; an error in the input is one line, exit status 2."""
    from utils.console import discard, say, what_of

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return main(args)
    except BrokenPipeError:  # nobody reads on, as with head
        discard(sys.stdout)
        sys.exit(141)
    except (ValueError, OSError, MemoryError, RuntimeError, FloatingPointError) as error:
        reason = what_of(error)
        if isinstance(error, MemoryError | RuntimeError):
            if not _is_out_of_memory(error):
                raise  # not of the input: a defect of this program
            where = f" on {args.device}{LESS_MEMORY}" if hasattr(args, "device") else ""
            reason = f"out of memory{where}"
        if args.debug:
            raise
        say(f"{Path(sys.argv[0]).name}: error: {reason}", logging.ERROR)
        sys.exit(2)
    except KeyboardInterrupt:
        if args.debug:
            raise
        sys.exit(130)


def _is_out_of_memory(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(
        error
    )
