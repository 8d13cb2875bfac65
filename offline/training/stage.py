"""One stage of training inside an open run, whatever the trainer: resume, train, and end in one of four ways.

Done, stopped by a gate (with the reason), interrupted (a checkpoint is kept and KeyboardInterrupt goes on), or failed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from offline.training.bases import Base, save_model
from offline.training.checkpoints import step_of
from offline.training.gates import ALL_ZERO, Gates, GateSettings, Measure
from offline.training.manifest import RunManifest
from offline.training.progress import Watch
from offline.training.run import Run, Tell
from offline.training.trainer_arguments import cast_once, plain_attention, quiet_libraries
from schemas.errors import KeenstreamError
from schemas.secret import Secret


class SliceOver(KeenstreamError):
    """The run is not done; its time is, and it can be resumed."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is run: nothing of this changes what comes out."""

    device: str
    watch: Watch
    tell: Tell
    now_ms: int
    until: float | None = None  # of time.monotonic(): end the slice after the step that runs then
    judge_key: Secret = Secret()  # of an LLM judge


MakeTrainer = Callable[[Path], Any]  # the folder that it saves into -> a trainer of trl
Conclude = Callable[[Any], dict[str, float]]  # the trained model -> scores for the manifest


def train_stage(
    run: Run,
    base: Base,
    make_trainer: MakeTrainer,
    session: Session,
    *,
    gates: GateSettings | None = None,
    measure: Measure | None = None,
    measure_every: int = 0,
    scores: dict[str, float] | None = None,
    conclude: Conclude | None = None,
) -> RunManifest:
    """Train to the end of the stage and keep the model in the run's folder; `conclude` may still change it."""
    from transformers import PrinterCallback

    from offline.training.callbacks import Around, best_scores, held_out_scores, stopping_on_interrupt

    quiet_libraries()
    plain_attention(base.model, session.device)
    checkpoint = run.resume_from()
    with stopping_on_interrupt(session.until) as stop:
        # a stage without gates keeps its limits open: only GRPO's measures have them
        watched = Gates(gates or GateSettings())
        watched.replay(run.curves.rows)
        keep = (lambda model, folder: save_model(base._replace(model=model), folder)) if gates else None
        around = Around(run, watched, stop, session.watch, measure=measure, measure_every=measure_every, keep=keep)
        trainer = make_trainer(run.checkpoints.staging)
        if trainer.args.bf16:
            cast_once(trainer.model, session.device)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(around)
        _train(trainer, checkpoint)
        steps = trainer.state.global_step
        if steps < trainer.state.max_steps and not around.reason:
            raise _unfinished(run, steps, trainer.state.max_steps, interrupted=stop.wished)
    if watched.nothing_earned:
        raise KeenstreamError(f"in all {steps} steps of {run.folder} {ALL_ZERO}; then begin in another folder")
    trained = base._replace(model=trainer.accelerator.unwrap_model(trainer.model))
    found = (scores or {}) | held_out_scores(run) | (conclude(trained.model) if conclude else {})
    if around.reason and (best := run.best.measured()):
        session.tell(f"kept are the weights of step {best.step}, the best on held-out readers")
        return run.finish(run.best.copy_to, steps=steps, reason=around.reason, scores=found | best_scores(best))
    return run.finish(lambda folder: save_model(trained, folder), steps=steps, reason=around.reason, scores=found)


def _train(trainer: Any, checkpoint: Path | None) -> None:
    """To its last step; from there on transformers would do one more, where that is in the middle of an epoch."""
    from transformers import TrainerState
    from transformers.trainer import TRAINER_STATE_NAME

    if checkpoint is None:
        trainer.train()
    elif step_of(checkpoint) < trainer.args.max_steps:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    else:
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))


def _unfinished(run: Run, steps: int, of: int, *, interrupted: bool) -> BaseException:
    if interrupted:
        return KeyboardInterrupt()
    return SliceOver(
        f"{steps} of {of} steps of {run.folder} are done and its time is over: repeat the command to go on"
    )
