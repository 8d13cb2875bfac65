"""What cleaning earns, with cleaners that are never wrong, and always."""

import asyncio
from collections.abc import Sequence

import pytest

from offline.evaluate.cleaning import NO_NOISE, RULES_ALONE, Cleaned, cleaned_by, dropped_share, without_true_noise
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.protocol import SIGNALS, Task, build_task, cleaning_rows
from offline.evaluate.retrieval import VectorCache
from offline.simulate import SimulationSettings
from schemas.clients.memory_models import MemoryCleaner, MemoryEmbedder
from schemas.clients.models import Verdicts
from schemas.config import Config
from schemas.profile import Signal, UserProfile

SETTINGS = SimulationSettings(
    readers=200, articles=1_500, events_per_reader=25, days=8, gap=0.0, noise="wide", noise_share=0.5
)


@pytest.fixture(scope="module")
def task() -> Task:
    return asyncio.run(build_task(SETTINGS, None, Config(), VectorCache(MemoryEmbedder())))


class Knowing:
    """A cleaner that has been told which texts are noise."""

    def __init__(self, noise: frozenset[str]) -> None:
        self._noise = noise

    async def judge(self, texts: Sequence[str]) -> Verdicts:
        return Verdicts(noise=tuple(text in self._noise for text in texts), model_version="knowing-1")

    async def close(self) -> None: ...


def noise_of(task: Task, readers: Sequence[HeldOutReader]) -> frozenset[str]:
    signals = (signal for reader in readers for signal in (*reader.profile.page, *reader.profile.search))
    return frozenset(signal.text for signal in signals if signal.event_id in task.noise)


async def test_a_cleaner_that_is_never_wrong_earns_what_the_oracle_does(task: Task) -> None:
    readers = task.split.of("reported", 60)
    cleaned = await cleaned_by(Knowing(noise_of(task, readers)), readers, latest=99)
    assert cleaned.dropped == pytest.approx(dropped_share(readers, without_true_noise(readers, task.noise)), abs=0.01)
    assert 0.25 < cleaned.dropped < 0.5  # half of them are noise, of which the rules have dropped some
    found, gains = await cleaning_rows(task, readers, cleaned)
    rows, by = {row.system: row for row in found}, {gain.system: gain for gain in gains}
    assert rows.keys() == {RULES_ALONE, NO_NOISE}
    assert by[SIGNALS].version == "knowing-1"
    assert by[SIGNALS].recall_at_10.mean == pytest.approx(by[NO_NOISE].recall_at_10.mean, abs=0.005)
    gained = rows[NO_NOISE].recall_at_10.mean - rows[RULES_ALONE].recall_at_10.mean
    assert by[NO_NOISE].recall_at_10.mean == pytest.approx(gained)
    assert gained > 0


async def test_a_cleaner_that_drops_interests_costs_recall(task: Task) -> None:
    readers = task.split.of("reported", 60)
    kept = {signal.text for reader in readers for signal in (*reader.profile.page, *reader.profile.search)}
    wrong = await cleaned_by(Knowing(frozenset(kept) - noise_of(task, readers)), readers, latest=99)
    _, gains = await cleaning_rows(task, readers, wrong)
    assert next(gain for gain in gains if gain.system == SIGNALS).recall_at_10.mean < 0


async def test_one_that_finds_nothing_changes_nothing(task: Task) -> None:
    readers = task.split.of("reported", 20)
    cleaned = await cleaned_by(MemoryCleaner(frozenset()), readers, latest=16)
    assert (cleaned.readers, cleaned.dropped) == (readers, 0.0)
    _, gains = await cleaning_rows(task, readers, Cleaned(readers, "none", 0.0))
    assert next(gain for gain in gains if gain.system == SIGNALS).recall_at_50.mean == 0


def test_a_reader_of_whom_only_noise_is_known_keeps_it() -> None:
    reader = HeldOutReader("u", UserProfile("u", page=(Signal(1, "e1", "youtube"),)), frozenset({"a"}))
    assert without_true_noise([reader], {"e1"}) == [reader]
