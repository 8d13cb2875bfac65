"""The same checkpoint written by the engine that serves and by transformers, and what is kept of it."""

from pathlib import Path

import msgspec
import pytest

from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.policies import of_checkpoint
from offline.evaluate.prompt_writers import Checkpoint, known_engine, lists_key, prompt_writer
from offline.release.agreement import agreement
from offline.training.tiny import write_tiny
from schemas.errors import UsageError
from schemas.prompt import BARE, render_prompt
from tests.offline.training.world import readers, write_tokenizer

READERS = [HeldOutReader(row.user_id, row.profile, frozenset(row.clicked)) for row in readers(12)]
PROMPTS = [render_prompt(reader.profile, BARE) for reader in READERS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "tokenizer").mkdir()
    write_tokenizer(folder / "tokenizer")
    write_tiny(folder / "tokenizer", folder / "model", tied=True)
    return Checkpoint(folder=str(folder / "model"), prompt=BARE, max_new_tokens=10, precision="f32")


def test_greedy_lists_are_those_of_transformers_and_samples_repeat_by_seed(checkpoint: Checkpoint) -> None:
    with prompt_writer(msgspec.structs.replace(checkpoint, engine="openvino")) as served:
        found, again, other = (served(PROMPTS, 2, seed) for seed in (1, 1, 2))
        greedy = [texts[0] for texts in served(PROMPTS, 1, 0)]
    assert found == again
    assert {len(texts) for texts in found} == {2}
    assert found != other
    with prompt_writer(checkpoint) as trained:
        assert agreement([texts[0] for texts in trained(PROMPTS, 1, 0)], greedy).overlap > 0.3
        # int8 rows turn close calls of random weights; by chance it is 0


def test_seeds_and_prompts_have_chances_of_their_own(checkpoint: Checkpoint) -> None:
    """Samples of seed 2 are not those of seed 1 moved by one, and a prompt's are not those of another's."""
    with prompt_writer(msgspec.structs.replace(checkpoint, engine="openvino")) as served:
        first, second = (served(PROMPTS[:1], 3, seed)[0] for seed in (1, 2))
    assert first[1:] != second[:-1]
    assert len(set(first)) == 3


def told(step: str) -> None:
    STEPS.append(step)


STEPS: list[str] = []


def test_no_list_is_written_twice(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with of_checkpoint(checkpoint, tmp_path)(told) as write:
        found = write(READERS, 3, 1)
        first = {user: texts[:1] for user, texts in found.items()}
        STEPS.clear()
        assert write(READERS, 1, 1) == first
        assert write([*READERS, READERS[0]], 3, 1) == found
    with of_checkpoint(checkpoint, tmp_path)(told) as write:
        assert write(READERS, 2, 1) == {user: texts[:2] for user, texts in found.items()}
        assert STEPS == []
        write(READERS, 2, 2)
    assert STEPS == ["0 of 12"]


def test_other_weights_or_settings_have_lists_of_their_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    key = lists_key(checkpoint)
    assert lists_key(msgspec.structs.replace(checkpoint, device="cuda")) == key
    assert lists_key(msgspec.structs.replace(checkpoint, engine="openvino")) != key
    assert lists_key(msgspec.structs.replace(checkpoint, max_new_tokens=11)) != key
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert lists_key(msgspec.structs.replace(checkpoint, folder=str(tmp_path))) != key


def test_an_engine_that_is_none_is_told() -> None:
    assert known_engine("openvino") == "openvino"
    with pytest.raises(UsageError, match="--engine is transformers or openvino, not vllm"):
        known_engine("vllm")
