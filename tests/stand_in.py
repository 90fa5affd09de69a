"""A python for the sweep: the three scripts take no time, all else is the real one.

$PYTHON names an executable that starts this, and a module (-m utils.sweep) starts its children with
it too. Results are made up; lock, signals, checkpoint and refusals are as the training's. An epoch
takes $EPOCH_SECONDS; --lr 0.666 fails, --lr 0.999 ends in a signal.
"""

import os
import runpy
import signal
import sys
import time
from argparse import Namespace
from pathlib import Path

TOP = Path(__file__).parents[1]
FAILING_LR, KILLED_LR = 0.666, 0.999


def make_executable(path: Path) -> str:
    """A file there that starts this one as its Python does; its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__)}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def run_module(words: list[str]) -> None:
    sys.executable = os.environ.get("PYTHON", sys.executable)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def train(args: Namespace) -> None:
    """Epochs without networks, in a run folder like the real one."""
    from utils.console import logged_to, say
    from utils.files import write_json
    from utils.lock import locked
    from utils.run_folder.description import Description
    from utils.run_folder.folder import RunFolder
    from utils.run_folder.interruption import Interrupted, Interruption, handled_by

    folder, described = RunFolder.of(args), Description.of(args)
    description = {"options": described.options, "non_default_options": {}, "precision": "fp32"}
    of_children = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    description["children"] = {name: os.environ.get(name) for name in of_children}
    replaced = folder.replace() if args.restart else None
    if folder.finished_run(described):
        print(f"{folder}: this run is finished")
        return
    folder.make()
    interruption = Interruption()
    with locked(folder.path), logged_to(folder.log("training")), handled_by(interruption.note):
        first = int(folder.checkpoint.read_text()) if folder.checkpoint.exists() else 0
        say(f"resuming from epoch {first}" if first else f"{folder}, before {replaced}")
        write_json(folder.args, description)
        for epoch in range(first, args.n_epoch):
            try:
                interruption.check()
            except Interrupted as interrupted:
                folder.checkpoint.write_text(str(epoch))
                say(f"{interrupted} in epoch {epoch}; the same command resumes from there")
                sys.exit(interrupted.status)
            time.sleep(float(os.environ.get("EPOCH_SECONDS", 0)))
            say(f"epoch {epoch:3d} clean test 50.00 %")
            rows = "".join(f"{number},50.0\n" for number in range(epoch + 1))
            folder.metrics.write_text(f"epoch,clean_test_accuracy\n{rows}")
            if args.lr == KILLED_LR:
                os.kill(os.getpid(), signal.SIGKILL)
            if args.lr == FAILING_LR:
                raise ValueError("the loss is not finite; try a smaller --lr")
        folder.checkpoint.unlink(missing_ok=True)
        write_json(folder.timing, {"wall_seconds": 1.0})
        record = {"tipping_point": None, "clean_test_accuracy": 50.0, "epochs": args.n_epoch}
        write_json(folder.training, record)


def evaluate(args: Namespace, stage: str) -> None:
    from utils.console import logged_to, say
    from utils.files import write_json
    from utils.run_folder.folder import RunFolder

    folder = RunFolder.of(args)
    with logged_to(folder.log(stage)):
        if stage == "learning":
            say("Best test acc selected by val is 50.00")
            write_json(folder.learning, {"last": {"accuracy": 50.0}, "best_val": None})
        else:
            say("The f-score is 0.5000")
            write_json(folder.detection_metrics, {"precision": 0.5, "recall": 0.5, "f1": 0.5})


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "-u"]
    sys.path[0] = str(TOP)
    if words[:1] == ["-m"]:
        run_module(words[1:])
    elif words[0].endswith("has_packages.py"):  # it takes long to ask
        sys.exit(0)
    elif Path(words[0]).parent != TOP:
        os.execv(sys.executable, [sys.executable, *words])
    else:
        from utils.options.training import training_parser

        options = training_parser().parse_args(words[1:])
        stage = Path(words[0]).stem
        try:
            evaluate(options, stage) if stage in ("learning", "detection") else train(options)
        except (ValueError, OSError) as error:
            sys.exit(f"{stage}.py: error: {error}")
