"""The same checkpoint written by the engine that serves and by transformers."""

from pathlib import Path

import pytest

from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.policies import Writing, of_checkpoint
from offline.evaluate.served_engine import ConvertedModel
from offline.release.agreement import agreement
from offline.training.tiny import write_tiny
from schemas.prompt import BARE
from tests.offline.training.world import readers, write_tokenizer

WRITING = Writing(samples=3, max_new_tokens=10)
READERS = [HeldOutReader(row.user_id, row.profile, frozenset(row.clicked)) for row in readers(12)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "tokenizer").mkdir()
    write_tokenizer(folder / "tokenizer")
    write_tiny(folder / "tokenizer", folder / "model", tied=True)
    return folder / "model"


def test_greedy_lists_are_those_of_transformers_and_samples_repeat_by_seed(checkpoint: Path) -> None:
    served = ConvertedModel(str(checkpoint), BARE, WRITING, precision="f32")
    found, again, other = served(READERS, 1), served(READERS, 1), served(READERS, 2)
    assert found == again
    assert {len(texts) for texts in found.values()} == {WRITING.samples}
    trained = of_checkpoint(str(checkpoint), BARE, "cpu", Writing(max_new_tokens=10), READERS, 1)
    greedy = [texts[0] for texts in trained.values()], [found[user][0] for user in trained]
    assert agreement(*greedy).overlap > 0.3  # int8 rows turn close calls of random weights; by chance it is 0
    assert [texts[0] for texts in found.values()] == [texts[0] for texts in other.values()]
    assert [texts[1:] for texts in found.values()] != [texts[1:] for texts in other.values()]
