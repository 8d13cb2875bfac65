"""Files of articles: every form, every kind of broken row, and going on where a run ended."""

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import Unavailable, UsageError
from schemas.names import Topic
from stream.feeds import sending
from stream.feeds.formats import recognise
from stream.feeds.state import StateFile
from stream.producer import Outgoing
from tests.stream.feeds.ingesting import Desk

NEWS = "N1\tsports\tgolf\tA title of one\tAn abstract\thttps://msn.example/1\t[]\t[]\n"
NEWS_2 = NEWS.replace("N1", "N2").replace("of one", "of two").replace("/1", "/2")
BEHAVIORS = "1\tU7\t11/15/2019 8:55:22 AM\tN1 N2\tN1-0 N2-1\n"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def rows(count: int, first: int = 0) -> list[dict[str, str]]:
    numbers = range(first, first + count)
    return [{"headline": f"Title {n}", "link": f"https://n.example/{n}", "date": "2024-01-02"} for n in numbers]


def write_jsonl(path: Path, count: int) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))


def write_csv(path: Path, count: int) -> None:
    lines = ("{headline};{link};{date}".format(**row) for row in rows(count))
    path.write_text("\n".join(["headline;link;date", *lines]) + "\n")


def write_parquet(path: Path, count: int) -> None:
    pq.write_table(pa.Table.from_pylist(rows(count)), path, row_group_size=700)


WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


@pytest.fixture(params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    def write(count: int) -> Path:
        path = tmp_path / f"news.{request.param}"
        WRITERS[request.param](path, count)
        assert recognise(path) == request.param
        return path

    yield write


async def test_all_rows_arrive_once_and_in_order(desk: Desk, written: Callable[[int], Path]) -> None:
    result = await desk.file(written(2_500))
    assert result.tally.sent == 2_500
    assert desk.titles == [f"Title {number}" for number in range(2_500)]
    assert {message.topic for message in desk.producer.sent} == {Topic.ARTICLES}


async def test_a_second_run_sends_nothing_and_restart_all(desk: Desk, written: Callable[[int], Path]) -> None:
    path = written(30)
    await desk.file(path)
    again = await desk.file(path)
    assert (again.tally.sent, again.resumed_rows > 0) == (0, True)
    assert (await desk.file(path, restart=True)).tally.sent == 30


async def test_a_run_that_fails_in_the_middle_is_gone_on_with(
    desk: Desk, written: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 100)
    path, send, calls = written(1_000), desk.producer.send, 0

    async def failing(messages: list[Outgoing]) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Unavailable("Kafka does not answer")
        await send(messages)

    monkeypatch.setattr(desk.producer, "send", failing)
    with pytest.raises(Unavailable):
        await desk.file(path)
    assert len(desk.producer.sent) == 300
    result = await desk.file(path)
    assert result.tally.sent == 700
    assert desk.titles == [f"Title {number}" for number in range(1_000)]


async def test_another_file_of_the_same_name_is_read_from_its_beginning(
    desk: Desk, written: Callable[[int], Path]
) -> None:
    await desk.file(written(10))
    path = written(20)
    if path.suffix != ".parquet":
        path.write_text(path.read_text().replace("Title", "Other"))
    assert (await desk.file(path)).tally.sent == 20


async def test_a_file_that_grows_gives_what_was_added(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "growing.jsonl"
    write_jsonl(path, 3)
    await desk.file(path)
    with path.open("a") as file:
        file.write(json.dumps(rows(1, first=3)[0]) + "\n" + json.dumps(rows(1, first=4)[0])[:20])
    half = await desk.file(path)
    assert (half.tally.sent, half.tally.bad) == (1, 1)
    with path.open("a") as file:
        file.write(json.dumps(rows(1, first=4)[0])[20:] + "\n")
    assert (await desk.file(path)).tally.sent == 1
    assert desk.titles == [f"Title {number}" for number in range(5)]


async def test_another_cluster_has_none_of_it(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "news.jsonl"
    write_jsonl(path, 3)
    await desk.file(path)
    to = desk._to("another")
    monkeypatch.setattr(desk, "_to", lambda: to)
    assert (await desk.file(path)).tally.sent == 3


async def test_a_dry_run_sends_and_keeps_nothing(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "news.jsonl"
    write_jsonl(path, 3)
    result = await desk.file(path, dry_run=True)
    assert [article.title for article in result.samples] == ["Title 0", "Title 1", "Title 2"]
    assert (await desk.file(path)).tally.sent == 3


async def test_gzipped_lines_and_expiry(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "news.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(msgspec.json.encode(row) + b"\n" for row in rows(3))))
    await desk.file(path, expires_at_ms=5_000)
    assert [msgspec.json.decode(m.value or b"")["expires_at"] for m in desk.producer.sent] == [5_000] * 3


async def test_repeats_in_a_file_are_sent_once_and_changes_again(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "news.jsonl"
    first, changed = rows(1)[0], {**rows(1)[0], "headline": "Corrected"}
    path.write_text("\n".join(json.dumps(row) for row in (first, first, changed)) + "\n")
    result = await desk.file(path)
    assert (result.tally.sent, result.tally.unchanged) == (1, 1)
    assert desk.titles == ["Corrected"]


async def test_broken_rows_are_counted_and_the_rest_goes_on(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    path.write_bytes(
        b"title,url,date\n"
        b"good,https://n.example/1,2024-01-02\n"
        b"old,https://n.example/2,1970-01-01\n"
        b"ahead,https://n.example/3,2099-01-01\n"
        b"short,row\n"
        b'"two\nlines, quoted",https://n.example/4,2024-01-02\n'
        + "Müller,https://n.example/5,2024-01-02\n".encode("cp1252")
    )
    result = await desk.file(path)
    assert desk.titles == ["good", "two lines, quoted", "Müller"]
    assert (result.tally.bad, result.tally.mended) == (3, 1)
    assert result.tally.first_bad[2] == "5: 2 cells, the header has 3"
    redated = await desk.file(path, undated="arrival")
    assert (redated.tally.sent, redated.tally.redated, redated.tally.bad) == (5, 2, 1)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"headline,link\nx,https://n.example\n", "a.csv has no column for published_at"),
        ("a.jsonl", b'{"headline": "x", "date": 1}\n', "a.jsonl has no column for url"),
        ("a.csv", "title,url,date\n".encode("utf-16"), "UTF-16|known kind"),
        ("a.parquet", b"PAR1 and nothing more", "a.parquet is not a Parquet file"),
        ("a.jsonl.gz", gzip.compress(b'{"title": "x"}\n' * 9_000)[:-20], "a.jsonl.gz"),
        ("behaviors.tsv", BEHAVIORS.encode(), r"there is no .*news.tsv"),
        ("empty.csv", b"", "empty.csv is empty"),
        ("words.txt", b"hello\nworld\n", "--format"),
    ],
)
async def test_a_file_that_is_not_as_it_must_be_is_refused_before_anything_is_sent(
    desk: Desk, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        await desk.file(path)
    assert desk.producer.sent == []


async def test_a_parquet_file_that_lacks_a_column_is_refused(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "news.parquet"
    pq.write_table(pa.table({"title": ["a"], "url": ["https://n.example"], "when": [1]}), path)
    with pytest.raises(UsageError, match=r"news\.parquet has no column for published_at; it has: title, url, when"):
        await desk.file(path)
    await desk.file(path, mapping={"published_at": "when"}, undated="arrival")
    assert desk.titles == ["a"]


async def test_parquet_timestamps_and_types(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "news.parquet"
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    pq.write_table(pa.table({"title": ["a"], "url": ["https://n.example/a"], "date": [moment]}), path)
    await desk.file(path)
    assert msgspec.json.decode(desk.producer.sent[0].value or b"")["published_at"] == 1_704_153_600_000
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"title": [["a"]], "url": ["u"], "date": [moment]}), nested)
    with pytest.raises(UsageError, match="column title is of type list"):
        await desk.file(nested)


async def test_mind_news_keep_their_ids_and_are_of_the_first_reading(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "news.tsv"
    path.write_text(NEWS + "N9\tbroken\n")
    result = await desk.file(path)
    assert (result.tally.sent, result.tally.redated, result.tally.bad) == (1, 1, 1)
    assert desk.producer.sent[0].key == b"N1"


async def test_mind_behaviors_become_clicks_that_a_second_run_repeats(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "news.tsv").write_text(NEWS + NEWS_2)
    path = tmp_path / "behaviors.tsv"
    path.write_text(BEHAVIORS + BEHAVIORS.replace("1\tU7", "2\tU7") + "3\tU8\t11/15/2019 9:00:00 AM\t\tN404-1\n")
    result = await desk.file(path)
    sent = [msgspec.json.decode(message.value or b"") for message in desk.producer.sent]
    assert {(event["user_id"], event["kind"]) for event in sent} == {("U7", "click")}
    assert [(event["article_id"], event["occurred_at"]) for event in sent] == [
        ("N2", 1_573_257_540_000), ("N1", 1_573_257_480_000), ("N2", 1_573_808_122_000), ("N2", 1_573_808_122_000),
    ]  # fmt: skip
    assert sent[2]["text"] == "A title of two"
    assert result.tally.first_bad == ["3: clicked article N404 has no title in news.tsv"]
    before = list(desk.producer.sent)
    await desk.file(path, restart=True)
    assert desk.producer.sent == before * 2
    only = await desk.file(path, history_until_ms=None)
    assert only.tally.sent == 2


def test_a_state_that_is_broken_is_as_none_and_two_processes_exclude_each_other(tmp_path: Path) -> None:
    file = StateFile(tmp_path, "news.csv")
    with file.locked(), pytest.raises(UsageError, match="another process"), StateFile(tmp_path, "news.csv").locked():
        pass
    state = file.load()
    state.cluster = "c"
    file.save(state)
    assert file.load().cluster == "c"
    (saved,) = tmp_path.glob("*.json")
    saved.write_bytes(saved.read_bytes()[:-5])
    assert file.load().cluster == ""
