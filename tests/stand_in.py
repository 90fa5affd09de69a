"""In place of python for run.sh's sake: the three scripts take no time, all else is the real one.

    python stand_in.py blind_knowledge_dist_training.py --dataset digits …

What they write and print is made up; a run folder of unknown origin they refuse as the real one.
"""

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    script, words = sys.argv[1], sys.argv[2:]
    if not script.endswith(".py"):
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    sys.path.insert(0, os.getcwd())  # the project's top, where run.sh works
    from data.label_sets import LABEL_SETS
    from utils.options.training import training_parser
    from utils.run_folder.folder import RunFolder

    args = training_parser(LABEL_SETS).parse_args(words)
    folder = RunFolder.of(args).path
    folder.mkdir(parents=True, exist_ok=True)
    options = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()}
    if script == "blind_knowledge_dist_training.py":
        if (folder / "training.json").exists():
            sys.exit(print("this run is finished"))
        if (folder / "teacher.pth.tar").exists():
            sys.exit(f"error: {folder} holds teacher.pth.tar of unknown origin")
        print(said := "epoch   0 clean test 50.00 %")
        (folder / "metrics.csv").write_text("epoch,clean_test_accuracy\n0,50.0\n")
        made = {"options": options, "non_default_options": {}, "precision": "fp32"}
        files = {"args": made, "timing": {"wall_seconds": 1.0}}
        files["training"] = {"tipping_point": None, "clean_test_accuracy": 50.0}
    elif script == "learning.py":
        print(said := "Best test acc selected by val is 50.00")
        files = {"learning": {"last": {"accuracy": 50.0}, "best_val": None}}
    else:
        print(said := "The f-score is 0.5000")
        files = {"detection": {"precision": 0.5, "recall": 0.5, "f1": 0.5}}
    stage = {"learning.py": "learning", "detection.py": "detection"}.get(script, "training")
    (folder / f"{stage}.log").write_text(f"{said}\n")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
