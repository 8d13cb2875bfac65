"""Feeds from a local HTTP server, well and badly behaved."""

import gzip
import re
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import msgspec
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from stream.feeds.ingestion import SourceResult
from stream.feeds.politeness import Robots, Turns, retry_after_seconds
from tests.stream.feeds.ingesting import QUICK, Desk

ITEM = (
    "<item><title>Title {n}</title><link>https://news.example/{n}?utm_source=rss</link>"
    "<guid>https://news.example/{n}</guid><description>&lt;p&gt;Text of {n}&lt;/p&gt;</description>"
    "<pubDate>Tue, 02 Jan 2024 10:00:00 GMT</pubDate></item>"
)


def rss(count: int, *, first: int = 0, head: str = "", language: str = "en-us") -> str:
    items = "".join(ITEM.format(n=number) for number in range(first, first + count))
    return (
        f'<?xml version="1.0"?><rss version="2.0"><channel><title>News</title><link>https://www.news.example</link>'
        f"<language>{language}</language>{head}{items}</channel></rss>"
    )


ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="en"><title>A</title><id>urn:a</id>
<link href="https://atom.example/"/><updated>2024-01-02T00:00:00Z</updated>
<entry><title type="html">Caf&amp;eacute; &lt;b&gt;opens&lt;/b&gt;</title><id>urn:uuid:1</id>
<link href="https://atom.example/1"/><updated>2024-01-02T00:00:00Z</updated><summary>Short</summary></entry>
<entry xml:lang="de"><title xml:lang="de">Deutsch</title><id>urn:uuid:2</id><link href="https://atom.example/2"/>
<updated>2024-01-02T00:00:00Z</updated></entry></feed>"""

SITEMAP = """<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:news="http://www.google.com/schemas/sitemap-news/0.9">
<url><loc>https://n.example/{n}</loc><news:news><news:publication><news:name>The Example</news:name>
<news:language>en</news:language></news:publication><news:publication_date>2024-01-02T10:00:00+01:00</news:publication_date>
<news:title>Story {n}</news:title><news:keywords>Business, Trade</news:keywords></news:news></url>
<url><loc>https://n.example/about</loc></url></urlset>"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def server(httpserver: HTTPServer) -> Iterator[HTTPServer]:
    httpserver.expect_request("/robots.txt").respond_with_data("", status=404)
    yield httpserver
    httpserver.clear()


def serve(server: HTTPServer, body: str | bytes, **options: object) -> str:
    server.expect_request("/feed").respond_with_data(body, **options)  # type: ignore[arg-type]
    return server.url_for("/feed")


def script(server: HTTPServer, *answers: Response) -> str:
    """The answers in turn; the last one stays."""
    left = list(answers)
    server.expect_request("/feed").respond_with_handler(lambda _: left.pop(0) if len(left) > 1 else left[0])
    return server.url_for("/feed")


def asked(server: HTTPServer, path: str = "/feed") -> list[Request]:
    return [request for request, _ in server.log if request.path == path]


def nothing_half(desk: Desk, result: SourceResult) -> None:
    """A source that failed sent nothing, and the next run reads it whole."""
    assert result.error
    assert (desk.producer.sent, result.tally.sent) == ([], 0)
    assert list(desk.options.folder.glob("*.json")) == []


async def test_a_feed_is_sent_once_and_then_what_is_new_or_changed(desk: Desk, server: HTTPServer) -> None:
    changed = rss(4).replace("Title 1", "Corrected")
    address = script(server, Response(rss(3)), Response(rss(3)), Response(changed))
    assert (await desk.feed(address)).tally.sent == 3
    assert (await desk.feed(address)).tally.unchanged == 3
    assert (await desk.feed(address)).tally.sent == 2
    assert desk.titles[3:] == ["Corrected", "Title 3"]
    assert desk.producer.sent[3].key == desk.producer.sent[1].key
    first = msgspec.json.decode(desk.producer.sent[0].value or b"")
    assert (first["source"], first["summary"]) == ("news.example", "Text of 0")


async def test_a_feed_that_did_not_change_is_not_read_again(desk: Desk, server: HTTPServer) -> None:
    marks = {"ETag": '"v1"', "Last-Modified": "Tue, 02 Jan 2024 10:00:00 GMT"}
    address = script(server, Response(rss(3), headers=marks), Response(status=304))
    await desk.feed(address)
    again = await desk.feed(address)
    assert again.not_modified
    headers = asked(server)[1].headers
    assert (headers["If-None-Match"], headers["If-Modified-Since"]) == tuple(marks.values())
    assert "keenstream" in headers["User-Agent"]


async def test_when_the_broker_is_away_the_feed_is_asked_for_whole_again(desk: Desk, server: HTTPServer) -> None:
    address = serve(server, rss(3), headers={"ETag": '"v1"'})
    desk.producer.failures = 1
    nothing_half(desk, await desk.feed(address))
    assert (await desk.feed(address)).tally.sent == 3
    assert "If-None-Match" not in asked(server)[1].headers


async def test_atom_markup_language_and_entities(desk: Desk, server: HTTPServer) -> None:
    result = await desk.feed(serve(server, ATOM))
    assert desk.titles == ["Café opens"]
    assert result.tally.other_language == 1


@pytest.mark.parametrize("written", ["1970", "2099", ""])
async def test_dates_that_cannot_be_are_replaced_once_and_for_all(desk: Desk, server: HTTPServer, written: str) -> None:
    date = f"Thu, 01 Jan {written} 10:00:00 GMT" if written else ""
    body = rss(1).replace("Tue, 02 Jan 2024 10:00:00 GMT", date)
    address = script(server, Response(body), Response(body), Response(body.replace("Title 0", "Corrected")))
    before = time.time_ns() // 1_000_000
    assert (await desk.feed(address)).tally.redated == 1
    assert (await desk.feed(address)).tally.unchanged == 1
    await desk.feed(address)
    first, second = (msgspec.json.decode(message.value or b"") for message in desk.producer.sent)
    assert before <= first["published_at"] == second["published_at"]


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_packed_answers(desk: Desk, server: HTTPServer, encoding: str) -> None:
    packed = gzip.compress(rss(3).encode()) if encoding == "gzip" else brotli.compress(rss(3).encode())
    assert (await desk.feed(serve(server, packed, headers={"Content-Encoding": encoding}))).tally.sent == 3
    assert {"gzip", "br"} <= set(asked(server)[0].headers["Accept-Encoding"].replace(" ", "").split(","))


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream", "text/plain; charset=nonsense"])
async def test_a_wrong_content_type_does_not_matter(desk: Desk, server: HTTPServer, content_type: str) -> None:
    assert (await desk.feed(serve(server, rss(3), content_type=content_type))).tally.sent == 3


async def test_a_wrong_encoding_is_mended_and_said(desk: Desk, server: HTTPServer) -> None:
    body = rss(1).replace('"1.0"?', '"1.0" encoding="utf-8"?').replace("Title 0", "Müller’s").encode("cp1252")
    result = await desk.feed(serve(server, body, content_type="text/xml; charset=utf-8"))
    assert desk.titles == ["Müller’s"]
    assert result.tally.mended == 1


async def test_500_and_429_are_tried_again(desk: Desk, server: HTTPServer) -> None:
    address = script(server, Response(status=500), Response(status=429, headers={"Retry-After": "3"}), Response(rss(3)))
    assert (await desk.feed(address)).tally.sent == 3
    assert len(desk.slept) == 2
    assert desk.slept[1] == 3.0


@pytest.mark.parametrize(
    ("answer", "says", "times"),
    [
        (Response(status=503), "answers 503", 3),
        (Response(status=429, headers={"Retry-After": "3600"}), "asks to come back in 3600 s", 1),
        (Response(status=404), "answers 404.*check the address", 1),
        (Response("<!doctype html><html><body>Hello</body></html>"), "is an HTML page, not a feed", 1),
        (Response('<html><link rel="alternate" type="application/rss+xml" href="/rss"></html>'), "feed: http.*/rss", 1),
        (Response(""), "is empty", 1),
        (Response('{"title": "x"}'), "is jsonl, not a feed", 1),
        (Response(rss(20_000)), "larger than 2 MiB", 1),
        (Response(gzip.compress(b" " * 50_000_000), headers={"Content-Encoding": "gzip"}), "larger than 2 MiB", 1),
        (Response(brotli.compress(b" " * 50_000_000), headers={"Content-Encoding": "br"}), "larger than 2 MiB", 1),
        (Response(gzip.compress(rss(99).encode())[:-30], headers={"Content-Encoding": "gzip"}), "breaks off", 3),
        (Response(b"not gzip", headers={"Content-Encoding": "gzip"}), "packed body that is broken", 3),
        (Response(gzip.compress(b" " * 50_000_000)), "larger than 2 MiB when unpacked", 1),
        (Response(status=301, headers={"Location": "/feed"}), "redirects more than 5 times", 1),
        (Response(status=302, headers={"Location": "file:///etc/passwd"}), "not an http or https address", 1),
        (Response(SITEMAP.replace("</urlset>", "")), "not a sound sitemap", 1),
        (Response("<!DOCTYPE a [<!ENTITY b 'c'>]>" + SITEMAP.partition("?>")[2]), "not a sound sitemap", 1),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_said_and_nothing_is_half_written(
    desk: Desk, server: HTTPServer, answer: Response, says: str, times: int
) -> None:
    result = await desk.feed(script(server, answer))
    nothing_half(desk, result)
    assert re.search(says, result.error), result.error
    assert len(asked(server)) == (times if "redirects" not in says else 6)


async def test_a_server_that_is_slow_is_left_after_the_time_limit(tmp_path: Path, server: HTTPServer) -> None:
    desk = Desk(tmp_path, limits=msgspec.structs.replace(QUICK, seconds=0.5, attempts=2))

    def drip(_: Request) -> Response:
        return Response(part for part in _slowly(rss(3).encode()))

    server.expect_request("/feed").respond_with_handler(drip)
    result = await desk.feed(server.url_for("/feed"))
    nothing_half(desk, result)
    assert "did not answer whole within 0.5 s" in result.error


def _slowly(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), len(body) // 10):
        time.sleep(0.2)
        yield body[at : at + len(body) // 10]


async def test_a_server_that_is_not_there(desk: Desk) -> None:
    result = await desk.feed("http://127.0.0.1:1/feed")
    nothing_half(desk, result)
    assert "http://127.0.0.1:1" in result.error


async def test_a_feed_that_breaks_off_gives_its_whole_entries_and_is_read_again(desk: Desk, server: HTTPServer) -> None:
    whole = rss(3)
    cut = whole[: whole.index("Text of 2") + 4]
    address = script(server, Response(cut, headers={"ETag": '"v1"'}), Response(whole))
    result = await desk.feed(address)
    assert desk.titles == ["Title 0", "Title 1"]
    assert "breaks off" in result.remarks[0]
    assert (await desk.feed(address)).tally.sent == 1
    assert "If-None-Match" not in asked(server)[1].headers


async def test_broken_xml_gives_what_can_be_read_and_says_so(desk: Desk, server: HTTPServer) -> None:
    body = rss(3).replace("Title 1", "Title & <1")
    result = await desk.feed(serve(server, body))
    assert desk.titles[0] == "Title 0"
    assert desk.titles[-1] == "Title 2"
    assert "broken XML" in result.remarks[0]


async def test_an_entry_without_a_title_is_counted_and_the_rest_goes_on(desk: Desk, server: HTTPServer) -> None:
    result = await desk.feed(serve(server, rss(3).replace("Title 1", "")))
    assert desk.titles == ["Title 0", "Title 2"]
    assert "title" in result.tally.first_bad[0]


async def test_a_permanent_redirect_is_followed_and_noted(desk: Desk, server: HTTPServer) -> None:
    server.expect_request("/old").respond_with_data("", status=301, headers={"Location": "/feed"})
    serve(server, rss(3))
    result = await desk.feed(server.url_for("/old"))
    assert result.tally.sent == 3
    assert f"has moved for good: use {server.url_for('/feed')}" in result.remarks[0]


async def test_robots_txt_is_kept_unless_told_otherwise(tmp_path: Path, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/robots.txt").respond_with_data("User-agent: *\nDisallow: /feed")
    address = serve(httpserver, rss(3))
    closed = await Desk(tmp_path / "a").feed(address)
    assert "robots.txt" in closed.error
    assert asked(httpserver) == []
    limits = msgspec.structs.replace(QUICK, robots=False)
    assert (await Desk(tmp_path / "b", limits=limits).feed(address)).tally.sent == 3


async def test_a_news_sitemap_and_an_index_with_one_that_fails(desk: Desk, server: HTTPServer) -> None:
    names = ("a.xml", "gone.xml", "b.xml.gz")
    children = "".join(f"<sitemap><loc>{server.url_for('/' + name)}</loc></sitemap>" for name in names)
    index = f'<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{children}</sitemapindex>'
    server.expect_request("/a.xml").respond_with_data(SITEMAP.replace("{n}", "1"))
    server.expect_request("/gone.xml").respond_with_data("", status=404)
    server.expect_request("/b.xml.gz").respond_with_data(gzip.compress(SITEMAP.replace("{n}", "2").encode()))
    result = await desk.feed(serve(server, index))
    assert sorted(desk.titles) == ["Story 1", "Story 2"]
    assert (result.tally.no_news, result.error) == (2, "1 sitemaps of the index failed")
    article = msgspec.json.decode(desk.producer.sent[0].value or b"")
    assert (article["source"], article["category"], article["published_at"]) == (
        "The Example", "Business", 1_704_186_000_000,
    )  # fmt: skip


async def test_a_feed_in_a_file(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "feed.xml"
    path.write_text(rss(3))
    assert (await desk.document(path)).tally.sent == 3
    assert (await desk.document(path)).tally.unchanged == 3


@pytest.mark.parametrize(("value", "seconds"), [("120", 120.0), ("soon", None), ("", None), (formatdate(0), 0.0)])
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_seconds(value) == seconds


def test_crawl_delay_is_bounded() -> None:
    assert Robots("User-agent: *\nCrawl-delay: 5", "keenstream").pause_seconds == 5.0
    assert Robots("User-agent: *\nCrawl-delay: 9999", "keenstream").pause_seconds == 30.0


async def test_one_host_is_asked_with_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("stream.feeds.politeness.asyncio.sleep", sleep)
    turns = Turns(2.0, clock=lambda: 100.0)
    await turns.wait("a")
    turns.done("a")
    await turns.wait("a")
    await turns.wait("b")
    assert slept == [2.0]
