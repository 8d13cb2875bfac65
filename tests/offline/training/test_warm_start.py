import msgspec
import pytest

from offline.training.material import Material, composite_of, make_news
from offline.training.news_index import TextVectors
from offline.training.warm_start import ChoiceSettings, choose_lists, in_choosing_half
from schemas.clients.memory_models import MemoryEmbedder
from schemas.errors import UsageError
from schemas.profile import Signal
from schemas.prompt import BARE, render_prompt
from schemas.queries import parse_queries
from tests.offline.training import world

HITS_ONLY = composite_of({}, {})


def test_every_reader_gets_a_list_that_parses_back_and_the_bare_prompt(material: Material) -> None:
    chosen = choose_lists(material.training, material.news, composite_of(world.REWARDS, {}), ChoiceSettings())
    assert [row.user_id for row in chosen] == [reader.user_id for reader in material.training]
    for row, reader in zip(chosen, material.training, strict=True):
        assert row.prompt == render_prompt(reader.profile, BARE)
        assert row.completion.startswith(" ")
        assert row.completion == " " + "; ".join(parse_queries(row.completion))


def test_a_readers_own_later_clicks_do_not_choose_that_readers_list(material: Material) -> None:
    """Another reader's clicks do: the models are of the other half of the readers."""
    first, *others = material.training
    moved = [msgspec.structs.replace(first, clicked=("lithium-0", "lithium-1")), *others]
    lists = [choose_lists(rows, material.news, HITS_ONLY, ChoiceSettings()) for rows in (material.training, moved)]
    assert lists[0][0].completion == lists[1][0].completion
    assert lists[0][0].recall != lists[1][0].recall


def test_recall_is_of_news_that_chose_nothing(material: Material) -> None:
    choosing = [article.article_id for article in material.news.articles if in_choosing_half(article.article_id)]
    moved = [msgspec.structs.replace(reader, clicked=tuple(choosing[:3])) for reader in material.training]
    chosen = choose_lists(moved, material.news, HITS_ONLY, ChoiceSettings())
    assert {row.recall for row in chosen} == {row.signals_recall for row in chosen} == {None}


def test_news_that_was_shown_no_more_reports_nothing(material: Material) -> None:
    """It chooses all the same."""
    old = msgspec.structs.replace(
        material.news, shown_from_ms=max(row.published_at for row in material.news.articles) + 1
    )
    chosen = choose_lists(material.training, old, HITS_ONLY, ChoiceSettings())
    assert {row.recall for row in chosen} == {None}
    assert [row.user_id for row in chosen] == [reader.user_id for reader in material.training]


def test_news_that_was_partly_shown_still_chooses_by_topic(material: Material) -> None:
    """The click model is fitted to what was shown alone, and expects clicks on older news all the same."""
    times = sorted(row.published_at for row in material.news.articles)
    half = msgspec.structs.replace(material.news, shown_from_ms=times[len(times) // 2])
    chosen = choose_lists(material.training, half, HITS_ONLY, ChoiceSettings())
    topics = [reader.profile.click[0].text.split()[0].lower() for reader in material.training]
    told = [topic in row.completion.lower() for topic, row in zip(topics, chosen, strict=True)]
    assert sum(told) > 0.9 * len(told)


def test_noise_among_the_signals_is_not_chosen_first(material: Material) -> None:
    noise = Signal(0, "n", "gmail sign in")
    noisy = [
        msgspec.structs.replace(reader, profile=msgspec.structs.replace(reader.profile, page=(noise,)))
        for reader in material.training
    ]
    few = choose_lists(noisy, material.news, HITS_ONLY, ChoiceSettings())
    judged = [row.recall for row in few if row.recall is not None]
    assert sum(judged) > 0.8 * len(judged)
    news = make_news(world.articles(per_topic=150), TextVectors(MemoryEmbedder()))  # in a few, noise finds as much
    chosen = choose_lists(noisy, news, HITS_ONLY, ChoiceSettings())
    clean = [row for row in chosen if "gmail" not in row.completion]
    assert len(clean) > 0.8 * len(chosen)
    assert {row.source for row in clean} == {"names"}
    assert not any("gmail" in row.completion.partition(";")[0] for row in chosen)  # the best query comes first


def test_a_sample_with_the_highest_reward_is_chosen(material: Material) -> None:
    samples = [["storm coast; storm flood", "nothing of use"], *[[]] * (len(material.training) - 1)]

    def composite(readers: object, completions: object) -> list[float]:
        return [9.0 if "nothing" in text else 0.0 for text in completions]  # type: ignore[attr-defined]

    chosen = choose_lists(material.training, material.news, composite, ChoiceSettings(), samples)
    assert (chosen[0].source, chosen[0].completion) == ("samples", " nothing of use")
    assert all(row.source != "samples" for row in chosen[1:])


def test_one_reader_has_nobody_to_learn_from(material: Material) -> None:
    with pytest.raises(UsageError, match="at least two readers"):
        choose_lists(material.training[:1], material.news, HITS_ONLY, ChoiceSettings())
