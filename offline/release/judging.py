"""The held-out readers of prepared examples, as a release is judged on them: the protocol is that of `evaluate`."""

from collections.abc import Sequence
from pathlib import Path

from offline.evaluate.answers import Answer, WeightedQuery, of_lists
from offline.evaluate.baselines import own_signals
from offline.evaluate.judge import Judge
from offline.evaluate.policy_names import STORED_SIGNALS
from offline.evaluate.task import DAY_MS, make_task, refuse_training_readers
from offline.release.releases import BESIDE_SIGNALS, COMPARED, HeldOut
from offline.release.student import Progress
from offline.runners import RunnerSettings
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
        written = of_lists(dict(zip(users, lists, strict=True)))
        beside = [_beside(answer, own[answer.user_id], api) for answer in written]
        answers = {HELD_OUT: written, BESIDE_SIGNALS: beside, SIGNALS: list(own.values())}
        judged = judge.judge(task.readers, {name: [rows] for name, rows in answers.items()})
        return {name: judged.mean(name) for name in answers}

    prompts = [render_prompt(reader.profile, BARE) for reader in task.readers]
    return HeldOut(prompts=prompts, score=score, compared=compared)


def _beside(lists: Answer, signals: Answer, api: Api) -> Answer:
    """Both, as the API weighs them."""
    weighted = ((lists.queries, api.student_weight), (signals.queries, api.signal_weight))
    queries = tuple(WeightedQuery(query.text, weight) for queries, weight in weighted for query in queries if weight)
    return Answer(user_id=lists.user_id, queries=queries)
