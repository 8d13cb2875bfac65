import msgspec
import pytest

from offline.training.material import Material, composite_of
from offline.training.proposals import chosen_half
from offline.training.warm_start import ChoiceSettings, choose_lists
from schemas.errors import UsageError
from schemas.prompt import BARE, render_prompt
from schemas.queries import parse_queries
from tests.offline.training import world

HITS_ONLY = composite_of({}, {})


def test_every_reader_gets_a_list_that_parses_back_and_the_bare_prompt(material: Material) -> None:
    chosen = choose_lists(material.training, material.market, composite_of(world.REWARDS, {}), ChoiceSettings())
    assert [row.user_id for row in chosen] == [reader.user_id for reader in material.training]
    for row, reader in zip(chosen, material.training, strict=True):
        assert row.prompt == render_prompt(reader.profile, BARE)
        assert row.completion.startswith(" ")
        assert row.completion == " " + "; ".join(parse_queries(row.completion))


def test_the_half_that_is_held_apart_chooses_nothing(material: Material) -> None:
    """Other clicks in that half, the same lists."""
    moved = [
        msgspec.structs.replace(reader, clicked=tuple(chosen_half(reader.user_id, reader.clicked)[0]))
        for reader in material.training
    ]
    lists = [choose_lists(rows, material.market, HITS_ONLY, ChoiceSettings()) for rows in (material.training, moved)]
    assert [row.completion for row in lists[0]] == [row.completion for row in lists[1]]
    assert sum(row.held_apart for row in lists[0]) > 0
    assert sum(row.held_apart for row in lists[1]) == 0


def test_by_hits_alone_lists_find_at_least_what_the_signals_find(material: Material) -> None:
    chosen = choose_lists(material.training, material.market, HITS_ONLY, ChoiceSettings())
    assert {row.source for row in chosen} & {"neighbours", "phrases"}
    assert sum(row.held_apart for row in chosen) >= sum(row.signals_held_apart for row in chosen)


def test_a_sample_with_the_highest_reward_is_chosen(material: Material) -> None:
    samples = [["storm coast; storm flood", "nothing of use"], *[[]] * (len(material.training) - 1)]

    def composite(readers: object, completions: object) -> list[float]:
        return [9.0 if "nothing" in text else 0.0 for text in completions]  # type: ignore[attr-defined]

    chosen = choose_lists(material.training, material.market, composite, ChoiceSettings(), samples)
    assert (chosen[0].source, chosen[0].completion) == ("samples", " nothing of use")
    assert all(row.source != "samples" for row in chosen[1:])


def test_one_reader_has_nobody_to_learn_from(material: Material) -> None:
    with pytest.raises(UsageError, match="at least two readers"):
        choose_lists(material.training[:1], material.market, HITS_ONLY, ChoiceSettings())
