"""The held-out readers of prepared examples, as a release is judged on them: the protocol is that of `evaluate`."""

from collections.abc import Sequence
from pathlib import Path

from offline.evaluate.answers import fused_answers, of_lists
from offline.evaluate.baselines import own_signals
from offline.evaluate.judge import Judge
from offline.evaluate.policy_names import STORED_SIGNALS
from offline.evaluate.task import DAY_MS, make_task, refuse_training_readers
from offline.experiments.runners import RunnerSettings
from offline.release.releases import BESIDE_SIGNALS, COMPARED, HeldOut
from offline.release.student import Progress
from offline.simulate.impressions import FRESH_MS
from offline.training.example_set import load_split
from offline.training.gates import HELD_OUT
from offline.training.material import SIGNALS
from schemas.clients.models import Embedder
from schemas.config import Api
from schemas.prompt import BARE, render_prompt


def held_out_of(
    examples: Path, embedder: Embedder, api: Api, progress: Progress, *, most: int, compared: int = COMPARED
) -> HeldOut:
    """The first `most` held-out readers with something to find; UsageError when there is none."""
    rows = refuse_training_readers(load_split(examples, "held_out"))
    task = make_task(examples, rows, embedder, fresh_days=FRESH_MS / DAY_MS, most_readers=most)
    judge = Judge(task=task, embedder=embedder, api=api, runner=RunnerSettings(), step=progress)
    own = {answer.user_id: answer for answer in own_signals()[STORED_SIGNALS](task.readers)}
    users = [reader.user_id for reader in task.readers]

    def score(lists: Sequence[Sequence[str]]) -> dict[str, float]:
        written = {answer.user_id: answer for answer in of_lists(dict(zip(users, lists, strict=True)))}
        beside = fused_answers(written, own, api.student_weight / api.signal_weight)
        answers = {HELD_OUT: list(written.values()), BESIDE_SIGNALS: beside, SIGNALS: list(own.values())}
        judged = judge.judge(task.readers, {name: [rows] for name, rows in answers.items()})
        return {name: judged.mean(name) for name in answers}

    prompts = [render_prompt(reader.profile, BARE) for reader in task.readers]
    return HeldOut(prompts=prompts, score=score, compared=compared)
