"""One stage of training inside an open run, whatever the trainer: resume, train, and end in one of four ways.

Done, stopped by a gate (with the reason), interrupted (a checkpoint is kept and KeyboardInterrupt goes on), or failed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from offline.training.bases import Base, save_model
from offline.training.callbacks import Around, Measure, held_out_scores, stopping_on_interrupt
from offline.training.gates import Gates, GateSettings
from offline.training.manifest import RunManifest
from offline.training.progress import Watch
from offline.training.run import Run
from offline.training.trainer_arguments import quiet_libraries

MakeTrainer = Callable[[Path], Any]  # the folder that it saves into -> a trainer of trl


def train_stage(
    run: Run,
    base: Base,
    make_trainer: MakeTrainer,
    watch: Watch,
    *,
    gates: GateSettings | None = None,
    measure: Measure | None = None,
    measure_every: int = 0,
    scores: dict[str, float] | None = None,
) -> RunManifest:
    """Train to the end of the stage and keep the model in the run's folder."""
    from transformers import PrinterCallback

    quiet_libraries()
    checkpoint = run.resume_from()
    with stopping_on_interrupt() as stop:
        # a stage without gates keeps its limits open: only GRPO's measures have them
        around = Around(run, Gates(gates or GateSettings()), stop, watch, measure=measure, measure_every=measure_every)
        trainer = make_trainer(run.checkpoints.staging)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(around)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        steps = trainer.state.global_step
        if stop.wished and steps < trainer.state.max_steps:
            raise KeyboardInterrupt
    trained = base._replace(model=trainer.accelerator.unwrap_model(trainer.model))
    found = (scores or {}) | held_out_scores(run)
    return run.finish(lambda folder: save_model(trained, folder), steps=steps, reason=around.reason, scores=found)
