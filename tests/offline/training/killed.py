"""A training process that is killed in the middle: `python -m tests.offline.training.killed BASE FOLDER STAGE STEP`.

It sends itself SIGKILL as soon as the step is logged, so what is on disk then is what a kill leaves.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from offline.training.progress import Progress
from offline.training.stage import Session
from tests.offline.training import world
from tests.offline.training.runs import run_stage


def main(base: str, folder: str, stage: str, step: str) -> None:
    def watch(progress: Progress) -> None:
        if progress.step == int(step) and progress.stage == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)  # as in the tests: sums of another order would be other weights
    session = Session(device="cpu", watch=watch, tell=lambda sentence: None, now_ms=1)
    run_stage(stage, Path(folder), base, world.material(), session)


if __name__ == "__main__":
    main(*sys.argv[1:])
