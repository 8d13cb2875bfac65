"""Dates, addresses, texts, languages and columns: what a source tells becomes an article, by examples and laws."""

from contextlib import suppress
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.article import Article
from schemas.errors import InvalidRecord, UsageError
from stream.feeds.addresses import canonical_url, stable_id
from stream.feeds.columns import choose_columns, parse_mapping
from stream.feeds.dates import AHEAD_MS, EARLIEST_MS, parse_date, plausible
from stream.feeds.rows import Fields, Left, Taken
from stream.feeds.rules import Rules, fingerprint_of, to_article
from stream.feeds.text import plain_text, wanted_language

NOW = 1_767_571_200_000
DAY_2024 = 1_704_153_600_000  # 2024-01-02


@pytest.mark.parametrize(
    "written",
    [
        "2024-01-02", "2024-01-02T00:00:00Z", "2024-01-02 00:00:00", "2024-01-02T01:00:00+01:00", "20240102",
        "Tue, 02 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 19:00:00 -0500", "1704153600", "1704153600000",
        1704153600, 1704153600.0, 1704153600000, 1704153600000000, date(2024, 1, 2), datetime(2024, 1, 2, tzinfo=UTC),
    ],
)  # fmt: skip
def test_a_date_is_read_in_the_usual_forms(written: object) -> None:
    assert parse_date(written) == DAY_2024


@pytest.mark.parametrize(
    "written", ["yesterday", "2024-13-45", -1, float("nan"), 10**19, True, "99/99/2024", "١٢٣٤٥٦٧٨٩"]
)
def test_what_is_no_date_is_refused(written: object) -> None:
    with pytest.raises(InvalidRecord, match="not a date"):
        parse_date(written)


@given(st.one_of(st.text(max_size=40), st.integers(), st.floats()))
def test_any_value_is_a_date_or_refused(value: object) -> None:
    with suppress(InvalidRecord):  # any other error fails the test
        assert parse_date(value) is None or isinstance(parse_date(value), int)


def test_plausible_dates_are_since_1990_and_not_ahead() -> None:
    assert plausible(EARLIEST_MS, NOW)
    assert plausible(NOW + AHEAD_MS, NOW)
    assert not plausible(EARLIEST_MS - 1, NOW)
    assert not plausible(NOW + AHEAD_MS + 1, NOW)
    assert not plausible(None, NOW)


@pytest.mark.parametrize(
    "other",
    [
        "https://news.example/a?id=1&utm_source=x", "HTTPS://News.Example:443/a?id=1#top", "https://news.example/a?id=1&fbclid=z",
        "https://news.example/a?utm_medium=rss&id=1&gclid=", "http://news.example/a?id=1",
    ],
)  # fmt: skip
def test_one_article_has_one_id_whatever_hangs_on_its_address(other: str) -> None:
    ids = {stable_id(source="s", guid="", url=url) for url in ("https://news.example/a?id=1", other)}
    assert len(ids) == 1


def test_ids_differ_by_what_names_an_article() -> None:
    assert canonical_url("https://n.example/a?id=1") != canonical_url("https://n.example/a?id=2")
    assert stable_id(source="s", guid="17", url="") != stable_id(source="t", guid="17", url="")
    assert stable_id(source="s", guid="https://n.example/a", url="https://x.example") == stable_id(
        source="t", guid="", url="https://n.example/a#top"
    )


@given(st.text(max_size=60))
def test_canonical_is_canonical_already_and_never_raises(address: str) -> None:
    once = canonical_url(address)
    assert canonical_url(once) == once
    assert len(stable_id(source="", guid=address, url=address)) == 24


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>Caf&eacute; &amp; <b>ba</b>r</p><script>evil()</script><p>two</p>", "Café & bar two"),
        ("5 < 6 &amp; 7 > 2", "5 < 6 & 7 > 2"),
        ("a\x00b\tc\n\u200bd", "a b c d"),
        ("<p>unclosed", "unclosed"),
        ("plain", "plain"),
    ],
)
def test_markup_becomes_text(markup: str, text: str) -> None:
    assert plain_text(markup, 100) == text


@given(st.text(max_size=300), st.integers(min_value=2, max_value=50))
def test_text_keeps_its_bound(markup: str, most: int) -> None:
    assert len(plain_text(markup, most)) <= most


def test_languages() -> None:
    wanted = [
        language for language in ("en", "en-US", "EN_gb", "", "und", "de", "fr-CA") if wanted_language(language, ["en"])
    ]
    assert wanted == ["en", "en-US", "EN_gb", "", "und"]


def fields(**changed: object) -> Fields:
    values = {"title": "A title", "url": "https://www.news.example/a", "published_at": "2024-01-02", **changed}
    return Fields(**values)  # type: ignore[arg-type]


def article_of(outcome: Taken | Left) -> Article:
    assert isinstance(outcome, Taken)
    assert isinstance(outcome.record, Article)
    return outcome.record


def test_an_article_of_fields() -> None:
    article = article_of(to_article(fields(summary="<i>Short</i>", category="x"), Rules(now_ms=NOW)))
    assert (article.source, article.summary, article.category, article.published_at) == (
        "news.example", "Short", "x", DAY_2024,
    )  # fmt: skip


@pytest.mark.parametrize("written", ["1970-01-01", "2099-01-01", None, "", "soon", 0])
def test_an_impossible_date_is_replaced_and_said_or_refused(written: object) -> None:
    taken = to_article(fields(published_at=written), Rules(now_ms=NOW, undated="arrival"))
    assert isinstance(taken, Taken)
    assert taken.redated
    assert article_of(taken).published_at == NOW
    with pytest.raises(InvalidRecord, match="published_at"):
        to_article(fields(published_at=written), Rules(now_ms=NOW, undated="refuse"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"title": " <br> "}, "title"),
        ({"url": "javascript:alert(1)"}, "url"),
        ({"url": ""}, "url"),
        ({"expires_at": "never"}, "expires_at"),
        ({"article_id": "x" * 200}, "article_id"),
    ],
)
def test_what_cannot_be_an_article_names_the_field(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidRecord, match=reason):
        to_article(fields(**changed), Rules(now_ms=NOW))


def test_another_language_is_left() -> None:
    assert to_article(fields(language="de"), Rules(now_ms=NOW)) == Left("language")


def test_a_fingerprint_is_of_the_content_not_of_the_moment() -> None:
    undated = [to_article(fields(published_at=None), Rules(now_ms=now)) for now in (NOW, NOW + 60_000)]
    changed = to_article(fields(published_at=None, title="Another"), Rules(now_ms=NOW))
    prints = [fingerprint_of(row) for row in (*undated, changed) if isinstance(row, Taken)]
    assert prints[0] == prints[1] != prints[2]


def test_columns_are_found_by_their_usual_names_and_mapped_ones_first() -> None:
    columns = choose_columns(["Headline", "LINK", "pub-date", "name"], {"title": "name"}, source="f")
    assert dict(columns.chosen) == {"title": "name", "url": "LINK", "published_at": "pub-date"}


@pytest.mark.parametrize(
    ("available", "mapping", "says"),
    [
        (["a", "link", "date"], {}, r"news\.csv has no column for title; it has: a, link, date.*--map title=COLUMN"),
        (["title", "date"], {}, "no column for url"),
        (["title", "url"], {}, "published_at.*--undated arrival"),
        (["title", "url", "date"], {"title": "nope"}, r"no column nope \(--map title=nope\)"),
    ],
)
def test_a_missing_column_is_named_with_its_file(available: list[str], mapping: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        choose_columns(available, mapping, source="news.csv")


@pytest.mark.parametrize("option", ["title", "title=", "nonsense=x", "=x"])
def test_a_mapping_that_says_nothing_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match="FIELD=COLUMN"):
        parse_mapping([option])


def test_a_field_is_mapped_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_mapping(["title=a", "title=b"])
