"""What models answer for the readers of a task: their greedy lists, and the best of several by the rewards' sum."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from offline.evaluate.answers import Answer, of_lists
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.judge import Answers
from offline.evaluate.policies import Completions, OpenPolicy, Step, Write
from offline.evaluate.policy_names import BEST_OF, CLEANED
from offline.evaluate.prompt_writers import LARGEST_N
from offline.evaluate.task import Task
from offline.training.proposals import signal_texts
from offline.training.rewards import Reward, best_of, composite, queries_of
from schemas.errors import UsageError
from schemas.prompt import BARE, render_prompt


class ModelAnswers(msgspec.Struct, frozen=True):
    answers: Answers
    validation: list[Answer]  # of the first training, of those validation readers that it has lists for


def model_answers(
    name: str,
    trainings: Sequence[OpenPolicy],
    task: Task,
    rewards: Mapping[str, Reward],
    *,
    weights: Mapping[str, float] = {},
    samples: int,
    seeds: Sequence[int],
    step: Step,
) -> ModelAnswers:
    """Of each training: N = 1, best-of-N where several lists were written, and N = 1 on cleaned profiles."""
    found: Answers = {name: []}
    validation: list[Answer] = []
    for number, opened in enumerate(trainings, start=1):
        called = f"lists of {name}" + (f", training {number}" if len(trainings) > 1 else "")
        step(called)
        with opened(lambda told, called=called: step(f"{called}: {told}")) as write:  # type: ignore[misc]
            asked = [*task.readers, *(task.validation if number == 1 else ())]
            first = write(asked, 1, seeds[0])
            greedy = first_lists(_lists_of_all(name, first, task.readers))
            found[name].append(greedy)
            if number == 1:
                known = [reader.user_id for reader in task.validation if first.get(reader.user_id)]
                validation = first_lists({user: first[user] for user in known})
            for completions in _sampled(name, write, first, task.best_of, samples, seeds):
                for n, answers in best_lists(completions, task.best_of, rewards, weights).items():
                    if n == 1 and len(task.best_of) == len(task.readers):
                        continue  # it is the greedy list of the same readers
                    found.setdefault(name + BEST_OF.format(n), []).append(answers)
            if task.cleaned:
                cleaned = first_lists(_lists_of_all(name, write(task.cleaned, 1, seeds[0]), task.readers))
                if cleaned != greedy:  # lists of a file are what they are
                    found.setdefault(name + CLEANED, []).append(cleaned)
    return ModelAnswers(found, validation)


def _sampled(
    name: str,
    write: Write,
    first: Completions,
    readers: Sequence[HeldOutReader],
    samples: int,
    seeds: Sequence[int],
) -> Iterator[Completions]:
    """Several lists of each of `readers`, by seed; what was written elsewhere has none; nothing for single lists."""
    given = {reader.user_id: first[reader.user_id] for reader in readers}
    if min(map(len, given.values())) > 1:
        yield given
    elif samples > 1:
        for seed in seeds:
            rows = _lists_of_all(name, write(readers, samples, seed), readers)
            if min(map(len, rows.values())) > 1:
                yield rows


def _lists_of_all(name: str, completions: Completions, readers: Sequence[HeldOutReader]) -> Completions:
    """Of these readers and no others; UsageError when some have none."""
    if missing := [reader.user_id for reader in readers if not completions.get(reader.user_id)]:
        raise UsageError(f"{name} has no list for {len(missing)} readers, {missing[0]} among them")
    return {reader.user_id: completions[reader.user_id] for reader in readers}


def first_lists(completions: Completions) -> list[Answer]:
    """N = 1: what the greedy list asks for."""
    return of_lists({user: queries_of(texts[0]) if texts else () for user, texts in completions.items()})


def best_lists(
    completions: Completions,
    readers: Sequence[HeldOutReader],
    rewards: Mapping[str, Reward],
    weights: Mapping[str, float] = {},
) -> dict[int, list[Answer]]:
    """For N = 1, 2, 4, ... up to the number of samples: the answers of the best of the first N, by the rewards' sum,
    weight 1 where none is named."""
    count = min(LARGEST_N, min(len(completions[reader.user_id]) for reader in readers))
    texts = [text for reader in readers for text in completions[reader.user_id][:count]]
    columns = {
        "prompts": [text for reader in readers for text in [render_prompt(reader.profile, BARE)] * count],
        "signals": [told for reader in readers for told in [signal_texts(reader.profile)] * count],
    }  # none of clicks: nothing that comes later may choose
    chosen = best_of(composite(rewards, texts, weights, **columns), count)
    found = {}
    for n in (2**power for power in range(count.bit_length())):
        rows = zip(readers, chosen[n - 1], strict=True)
        lists = {reader.user_id: queries_of(completions[reader.user_id][place]) for reader, place in rows}
        found[n] = of_lists(lists)
    return found
