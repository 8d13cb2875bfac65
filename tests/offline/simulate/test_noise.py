from random import Random

import pytest

from offline.reader_groups import SPLITS, SplitName, split_of
from offline.simulate import SimulationSettings, checked, run_id
from offline.simulate.noise import NoiseWords, WideNoise, dealt, load_noise, noise_writer, slots_of
from offline.simulate.vocabulary import load_vocabulary
from schemas.errors import UsageError

WORDS = load_noise()
BY_CHANCE = {"n", "number", "hex", "mash"}


def reader_of(split: SplitName) -> str:
    return next(user for user in (f"reader-{number:06d}" for number in range(999)) if split_of(user) == split)


def written(split: SplitName, count: int, seed: int = 1, words: NoiseWords = WORDS) -> list[str]:
    noise, user = WideNoise(words, Random(seed)), reader_of(split)
    return [noise.write(user) for _ in range(count)]


@pytest.mark.parametrize("name", [*WORDS.kinds, *WORDS.words])
def test_every_list_has_entries_for_every_split(name: str) -> None:
    entries = WORDS.kinds.get(name) or WORDS.words[name]
    parts = [dealt(entries, split) for split in SPLITS]
    assert all(parts)
    assert sorted(entry for part in parts for entry in part) == sorted(set(entries))  # each dealt once, none twice


def test_every_slot_has_words() -> None:
    slots = {slot for templates in WORDS.kinds.values() for template in templates for slot in slots_of(template)}
    assert slots - BY_CHANCE == set(WORDS.words)


def test_held_out_readers_meet_no_text_of_a_training_reader() -> None:
    training, held_out = set(written("training", 4_000)), set(written("held_out", 4_000))
    assert len(held_out) > 500
    assert training & held_out == set()


def test_a_seed_repeats_it() -> None:
    assert written("training", 50) == written("training", 50)
    assert written("training", 50) != written("training", 50, seed=2)


def test_listed_noise_is_that_of_the_vocabulary_for_everybody() -> None:
    vocabulary = load_vocabulary()
    write = noise_writer("listed", vocabulary, Random(1))
    assert {write("anybody") for _ in range(2_000)} == set(vocabulary.noise)


def test_simulations_of_before_the_setting_keep_their_names() -> None:
    assert run_id(SimulationSettings()) == "f84e0e21"
    assert run_id(SimulationSettings(noise="wide")) != "f84e0e21"


def test_other_noise_is_refused() -> None:
    with pytest.raises(UsageError, match="noise"):
        checked(SimulationSettings(noise="loud"))  # type: ignore[arg-type]
