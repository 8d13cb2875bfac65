import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from offline.evaluate.protocol import (
    LATEST,
    ORACLE,
    POPULARITY,
    SERVED,
    SIGNALS,
    STUDENT,
    TOLD,
    Task,
    build_task,
    rows,
    tune,
    write_lists,
)
from offline.evaluate.retrieval import VectorCache
from offline.simulate import SimulationSettings
from schemas.clients.memory_models import MemoryEmbedder, MemoryStudent
from schemas.clients.models import Answer, Completion
from schemas.clients.prompt_probe import PROBE
from schemas.config import Config
from schemas.errors import Unavailable
from schemas.prompt import BARE, EXAMPLES, PromptVersion, render_prompt

SETTINGS = SimulationSettings(readers=200, articles=1_500, events_per_reader=25, days=8, gap=0.0)


@pytest.fixture(scope="module")
def task() -> Task:
    return asyncio.run(build_task(SETTINGS, None, Config(), VectorCache(MemoryEmbedder())))


class Scripted:
    """Says nothing usable to greedy requests and `canal news` to sampled ones."""

    def __init__(self, prompt_version: str = "examples-1") -> None:
        self.seeds: list[int] = []
        self.prompts: list[str] = []
        self._prompt_version = prompt_version

    async def write(self, prompts: Sequence[str], *, samples: int = 1, seed: int = 0) -> list[Answer]:
        if prompts == [PROBE]:
            return [Completion(texts=("",), model_version="v1", prompt_version=self._prompt_version)]
        self.seeds.append(seed)
        self.prompts += prompts
        text = "canal news" if seed else "http://spam"
        return [Completion(texts=(text,), model_version="v1", prompt_version=self._prompt_version) for _ in prompts]

    async def close(self) -> None: ...


async def test_every_system_is_judged_on_the_same_readers(task: Task) -> None:
    readers = task.split.of("reported", 30)
    lists = await write_lists(MemoryStudent(), readers, max_queries=5)
    found = {row.system: row for row in await rows(task, readers, lists)}
    assert found.keys() == {SERVED, STUDENT, SIGNALS, LATEST, ORACLE, POPULARITY, TOLD}
    assert {row.recall_at_10.readers for row in found.values()} == {len(readers)}
    assert found[SERVED].served_minus_this is None
    difference = found[SIGNALS].served_minus_this
    assert difference is not None
    assert difference.mean == pytest.approx(found[SERVED].recall_at_10.mean - found[SIGNALS].recall_at_10.mean)
    assert all(row.recall_at_10.low <= row.recall_at_10.mean <= row.recall_at_10.high for row in found.values())


async def test_without_a_student_its_rows_are_left_out(task: Task) -> None:
    found = {row.system for row in await rows(task, task.split.of("reported", 10), None)}
    assert found == {SIGNALS, LATEST, ORACLE, POPULARITY, TOLD}


async def test_signals_that_are_headlines_find_later_clicks_better_than_chance(task: Task) -> None:
    readers = task.split.of("reported", 60)
    found = {row.system: row for row in await rows(task, readers, None)}
    chance = 10 / len(task.pool)
    assert found[SIGNALS].recall_at_10.mean > 3 * chance


async def test_a_weight_of_zero_is_the_signals_alone(task: Task) -> None:
    readers = task.split.of("tuning", 20)
    lists = await write_lists(MemoryStudent(), readers, max_queries=5)
    zero, half = await tune(task, readers, lists, (0.0, 0.5))
    alone = next(row for row in await rows(task, readers, None) if row.system == SIGNALS)
    assert zero.recall_at_10 == alone.recall_at_10
    assert half.student_weight == 0.5


async def test_an_unusable_list_is_asked_for_once_more_sampled(task: Task) -> None:
    student = Scripted()
    lists = await write_lists(student, task.split.of("reported", 3), max_queries=5)
    assert [bool(seed) for seed in student.seeds] == [False, True]
    assert set(lists.of_reader.values()) == {("canal news",)}
    assert (lists.version, lists.unusable) == ("v1", 0.0)


@pytest.mark.parametrize("version", [EXAMPLES, BARE])
async def test_a_student_is_asked_by_the_prompt_that_it_reads(task: Task, version: PromptVersion) -> None:
    readers, student = task.split.of("reported", 2), Scripted(version)
    lists = await write_lists(student, readers, max_queries=5)
    assert lists.prompt_version == version
    assert student.prompts[:2] == [render_prompt(reader.profile, version) for reader in readers]


async def test_a_student_of_a_prompt_that_this_code_lacks_is_not_judged(task: Task) -> None:
    with pytest.raises(Unavailable, match="trained on the prompt 'bare-0'"):
        await write_lists(Scripted("bare-0"), task.split.of("reported", 2), max_queries=5)


async def test_a_student_that_is_away_is_an_error(task: Task) -> None:
    student = MemoryStudent(failures=[Unavailable("triton does not answer")])
    with pytest.raises(Unavailable):
        await write_lists(student, task.split.of("reported", 2), max_queries=5)


async def test_the_same_settings_give_the_same_task(task: Task) -> None:
    again = await build_task(SETTINGS, None, Config(), VectorCache(MemoryEmbedder()))
    assert again.split == task.split
    assert msgspec.json.encode(list(again.pool)) == msgspec.json.encode(list(task.pool))
