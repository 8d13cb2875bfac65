from pathlib import Path

import pytest

from schemas.article import Article
from schemas.errors import UsageError
from stream.feeds.jsonl import BadLine, read_articles, read_events

HEADLINE = (
    '{"link": "https://news.example/a", "headline": "Heat pumps sell out", "category": "GREEN", '
    '"short_description": "Shops wait.", "date": "2022-09-23"}'
)


def write(folder: Path, *lines: str) -> Path:
    path = folder / "feed.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_headline_becomes_an_article(tmp_path: Path) -> None:
    (line,) = read_articles(write(tmp_path, HEADLINE))
    assert isinstance(line.row, Article)
    assert (line.row.title, line.row.category, line.row.published_at) == ("Heat pumps sell out", "GREEN", 1663891200000)


def test_the_id_comes_from_the_link_so_that_a_second_run_repeats(tmp_path: Path) -> None:
    first, second = read_articles(write(tmp_path, HEADLINE, HEADLINE.replace("sell out", "are back")))
    assert isinstance(first.row, Article)
    assert isinstance(second.row, Article)
    assert first.row.article_id == second.row.article_id


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (HEADLINE.replace("Heat pumps sell out", ""), "title"),
        (HEADLINE.replace("2022-09-23", "yesterday"), "yesterday"),
        (HEADLINE[:-20], "malformed"),
        ('{"article_id": "a", "url": "", "source": "s", "published_at": 1}', "title"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_broken_line_gives_its_number_and_the_rest_goes_on(tmp_path: Path, line: str, reason: str) -> None:
    good, bad, after = read_articles(write(tmp_path, HEADLINE, line, HEADLINE))
    assert isinstance(good.row, Article)
    assert isinstance(after.row, Article)
    assert isinstance(bad.row, BadLine)
    assert bad.row.number == 2
    assert reason in bad.row.reason


def test_empty_lines_are_nothing(tmp_path: Path) -> None:
    assert list(read_events(write(tmp_path, "", "  "))) == []


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.jsonl"):
        list(read_articles(tmp_path / "nowhere.jsonl"))
