"""`keenstream ingest` without a broker: what it takes a source for, what it prints, and how it refuses."""

import json
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from typer.testing import CliRunner

from keenstream.commands import application
from keenstream.commands.ingest import parse_duration
from schemas.errors import KeenstreamError, UsageError

RSS = """<rss version="2.0"><channel><title>Wire</title><link>https://wire.example</link>
<item><title>Rain in Spain</title><link>https://wire.example/1</link></item></channel></rss>"""
TABLE = (
    "headline_text;address;day\nRain in Spain;https://wire.example/1;2024-05-01\nOld;https://x.example/2;1970-01-01\n"
)
MAPPED = ("--map", "title=headline_text", "--map", "url=address", "--map", "published_at=day")


class Command:
    """The command in this process, as a dry run with a state folder of its own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        monkeypatch.setenv("KEENSTREAM_HOME", str(home / "state"))
        monkeypatch.setenv("COLUMNS", "200")

    def __call__(self, source: str | Path, *options: str) -> str:
        """What it prints. Raises what the command raises."""
        arguments = ["ingest", str(source), "--dry-run", "--pause", "0", *options]
        return CliRunner().invoke(application(), arguments, catch_exceptions=False).stdout

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.home / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.fixture
def ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path, monkeypatch)


@pytest.fixture
def server(httpserver: HTTPServer) -> HTTPServer:
    httpserver.expect_request("/robots.txt").respond_with_data("", status=404)
    httpserver.expect_request("/rss.xml").respond_with_data(RSS, content_type="application/rss+xml")
    return httpserver


def test_a_feed_is_fetched_and_what_would_be_sent_is_shown(ingest: Command, server: HTTPServer) -> None:
    shown = ingest(server.url_for("/rss.xml"))
    assert "1 would be sent" in shown
    assert "Rain in Spain" in shown
    assert json.loads(ingest(server.url_for("/rss.xml"), "--json"))["tally"]["sent"] == 1


def test_a_table_needs_to_be_told_its_columns_once(ingest: Command) -> None:
    path = ingest.file("news.csv", TABLE)
    with pytest.raises(UsageError, match=r"no column for title, published_at, url; it has: .*--map title=COLUMN"):
        ingest(path)
    shown = ingest(path, *MAPPED)
    assert "1 would be sent" in shown
    assert "row 3: published_at: before 1990 or in the future" in shown


def test_a_list_of_feeds_goes_on_behind_one_that_fails(ingest: Command, server: HTTPServer) -> None:
    server.expect_request("/page").respond_with_data("<html><body>no feed</body></html>")
    feeds = ingest.file("feeds.txt", f"{server.url_for('/page')}\n{server.url_for('/rss.xml')} # wire\n")
    with pytest.raises(KeenstreamError, match="1 of 2 feeds failed"):
        ingest(feeds)


@pytest.mark.parametrize(
    ("name", "content", "options", "says"),
    [
        ("page.html", "<html><body>hello</body></html>", (), "is an HTML page, not a feed"),
        ("empty.csv", "", (), "is empty"),
        ("news.bin", "no known kind", (), "--format"),
        ("broken.parquet", "PAR1", (), "is not a Parquet file"),
        ("news.csv", TABLE, ("--map", "headline"), "write FIELD=COLUMN"),
        ("news.csv", TABLE, (*MAPPED, "--every", "15m"), "--every is for feeds"),
        ("behaviors.tsv", "1\tU1\t11/15/2019 8:55:22 AM\tN1\tN2-1\n", (), "--news"),
        ("old.csv", "title;url;date\nOld;https://x.example/2;1970-01-01\n", (), "no article that can be sent"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(
    ingest: Command, name: str, content: str, options: tuple[str, ...], says: str
) -> None:
    with pytest.raises(KeenstreamError, match=says):
        ingest(ingest.file(name, content), *options)


@pytest.mark.parametrize("source", ["nowhere.csv", "ftp://wire.example/rss.xml"])
def test_what_is_not_there_is_wrong_usage(ingest: Command, source: str) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.csv|only http and https"):
        ingest(source)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7_200), ("1d", 86_400)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "0m", "15", "-5s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="as in 15m"):
        parse_duration(text)
