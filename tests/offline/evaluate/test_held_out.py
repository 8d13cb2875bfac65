from math import inf

from msgspec import structs

from offline.evaluate.held_out import Split, group_of, hold_out, pool_of, popular
from offline.simulate import Delivery
from schemas.article import Article
from schemas.config import Profiles
from schemas.event import Event, Kind

AT = 1_000


def delivered(
    user: str, kind: Kind, text: str, occurred_at: int, *, article: str = "", late: int = 0, repeat: bool = False
) -> Delivery:
    event = Event(
        event_id=f"{user}-{text}-{occurred_at}",
        user_id=user,
        kind=kind,
        text=text,
        occurred_at=occurred_at,
        article_id=article or None,
    )
    return Delivery(event, "topic", occurred_at + late, repeat)


def split(*deliveries: Delivery) -> Split:
    return hold_out(deliveries, AT, Profiles())


def test_history_becomes_the_profile_and_later_clicks_the_positives() -> None:
    found = split(
        delivered("u", "search", "canal freight", 10),
        delivered("u", "click", "Tanker blocks canal", 20, article="a1"),
        delivered("u", "click", "Canal opens", 2_000, article="a2"),
        delivered("u", "search", "after", 2_001),
    )
    (reader,) = found.readers
    assert [signal.text for signal in reader.profile.search] == ["canal freight"]
    assert reader.positives == {"a2"}
    assert found.clicks_before == ((20, "a1"),)
    assert found.clicks_after == {"u": ("a2",)}


def test_what_was_not_delivered_yet_is_not_known_and_no_positive() -> None:
    found = split(
        delivered("u", "search", "known", 10),
        delivered("u", "click", "Late one", 20, article="a1", late=5_000),
        delivered("u", "click", "Later", 1_500, article="a2"),
    )
    (reader,) = found.readers
    assert reader.profile.click == ()
    assert reader.positives == {"a2"}


def test_an_article_clicked_before_is_no_positive() -> None:
    found = split(
        delivered("u", "click", "Same", 10, article="a1"), delivered("u", "click", "Same", 1_500, article="a1")
    )
    assert found.readers == ()
    assert found.without_clicks == 1


def test_noise_is_cleaned_before_it_becomes_history() -> None:
    found = split(delivered("u", "search", "facebook login", 10), delivered("u", "click", "X y", 1_500, article="a"))
    assert found.readers == ()
    assert found.without_history == 1


def test_a_duplicate_changes_nothing() -> None:
    once = delivered("u", "click", "Tanker blocks canal", 20, article="a1")
    again = delivered("u", "click", "Tanker blocks canal", 20, article="a1", late=9, repeat=True)
    later = delivered("u", "click", "Later", 1_500, article="a2")
    assert split(once, again, later) == split(once, later)


def test_no_reader_is_in_both_groups_and_both_are_half() -> None:
    users = [f"reader-{number:06d}" for number in range(1, 1_001)]
    tuning = [user for user in users if group_of(user) == "tuning"]
    assert 440 < len(tuning) < 560
    rows = [delivered(user, "search", "canal", 10) for user in users[:40]]
    clicks = [delivered(user, "click", "Later", 1_500, article="a") for user in users[:40]]
    found = split(*rows, *clicks)
    reported, tuned = ({row.user_id for row in found.of(group, 40)} for group in ("reported", "tuning"))
    assert reported | tuned == set(users[:40])
    assert not reported & tuned
    assert len(found.of("tuning", 3)) == 3


def test_the_pool_is_what_is_fresh_and_not_expired_until_the_window_ends() -> None:
    times = {"stale": AT - 200, "fresh": AT - 199, "now": AT, "next": AT + 1, "last": AT + 500, "later": AT + 501}
    articles = [Article(article_id=n, title=n, url="u", source="s", published_at=at) for n, at in times.items()]
    articles += [structs.replace(articles[1], article_id=f"until {at}", expires_at=at) for at in (AT, AT + 1)]

    def found(until_ms: float) -> list[str]:
        return [article.article_id for article in pool_of(articles, AT, fresh_ms=200, until_ms=until_ms)]

    assert found(AT) == ["fresh", "now", f"until {AT + 1}"]
    assert found(AT + 500) == ["fresh", "now", "next", "last", f"until {AT + 1}"]
    assert found(inf) == ["fresh", "now", "next", "last", "later", f"until {AT + 1}"]


def test_popular_goes_by_clicks_then_by_id() -> None:
    assert popular(["b", "a", "c", "c", "b"]) == ["b", "c", "a"]
