import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from offline.simulate import (
    ARTICLES_FILE,
    EVENTS_FILE,
    IMPRESSIONS_FILE,
    TRUTH_FILE,
    Impression,
    SimulationSettings,
    write_simulation,
)
from offline.simulate.truth import ArticleTruth, EventTruth, ReaderTruth, TopicTruth, Truth
from schemas.article import Article
from schemas.codec import ARTICLES, EVENTS
from schemas.errors import FullDisk, UsageError
from tests.offline.simulate.conftest import SMALL

FILES = (ARTICLES_FILE, EVENTS_FILE, IMPRESSIONS_FILE, TRUTH_FILE)
RSS_PROGRAM = """
import resource, sys
from pathlib import Path
from offline.simulate import SimulationSettings, write_simulation
settings = SimulationSettings(readers=200, events_per_reader=float(sys.argv[2]), articles=1000)
summary = write_simulation(Path(sys.argv[1]), settings)
print(summary.events, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_a_seed_repeats_it_byte_for_byte_in_another_process(tmp_path: Path) -> None:
    write_simulation(tmp_path / "here", SMALL)
    program = (
        "import sys, msgspec; from pathlib import Path; from offline.simulate import *;"
        "write_simulation(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=SimulationSettings))"
    )
    for hash_seed in ("1", "2"):
        there = tmp_path / hash_seed
        settings = msgspec.json.encode(SMALL).decode()
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", program, str(there), settings], check=True, env=environment)
        assert digests(there) == digests(tmp_path / "here")


def test_another_seed_is_another_world(tmp_path: Path) -> None:
    write_simulation(tmp_path / "one", SMALL)
    write_simulation(tmp_path / "two", msgspec.structs.replace(SMALL, seed=8))
    assert not set(digests(tmp_path / "one")) & set(digests(tmp_path / "two"))


def test_files_hold_what_the_summary_says(tmp_path: Path) -> None:
    summary = write_simulation(tmp_path, SMALL)
    events = [EVENTS.decode(line) for line in lines(tmp_path / EVENTS_FILE)]
    assert len(events) == summary.events + summary.duplicates
    assert len({event.event_id for event in events}) == summary.events
    assert summary.last_event_ms == max(event.occurred_at for event in events)
    articles = [ARTICLES.decode(line) for line in lines(tmp_path / ARTICLES_FILE)]
    assert len(articles) == summary.articles == SMALL.articles
    clicked = {event.article_id for event in events if event.article_id}
    assert clicked <= {article.article_id for article in articles}
    shown = [msgspec.json.decode(line, type=Impression) for line in lines(tmp_path / IMPRESSIONS_FILE)]
    assert sum(len(row.clicked) for row in shown) == summary.clicks
    assert len(shown) == summary.impressions


def test_the_truth_knows_every_topic_article_reader_and_event(tmp_path: Path) -> None:
    summary = write_simulation(tmp_path, SMALL)
    rows = [msgspec.json.decode(line, type=Truth) for line in lines(tmp_path / TRUTH_FILE)]
    counts = {kind: sum(isinstance(row, kind) for row in rows) for kind in (TopicTruth, ArticleTruth, ReaderTruth)}
    assert list(counts.values()) == [summary.topics, summary.articles, summary.readers]
    topics = {row.topic for row in rows if isinstance(row, TopicTruth)}
    origins = [row.origin for row in rows if isinstance(row, EventTruth)]
    assert len(origins) == summary.events
    assert origins.count("noise") == summary.noise
    assert set(origins) <= topics | {"noise"}


def test_given_articles_keep_their_ids(tmp_path: Path) -> None:
    given = [
        Article(article_id=f"a{number}", title=f"Title {number} on rates", url="u", source="s", published_at=number)
        for number in range(12)
    ]
    write_simulation(tmp_path, SMALL, given)
    ids = [ARTICLES.decode(line).article_id for line in lines(tmp_path / ARTICLES_FILE)]
    assert ids == [article.article_id for article in given]


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    settings = SimulationSettings(readers=150, events_per_reader=60, articles=500)
    summary = write_simulation(tmp_path, settings, progress=lambda done, expected: told.append((done, expected)))
    assert [done for done, _ in told] == list(range(5_000, summary.events + 1, 5_000))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="file"):
        write_simulation(tmp_path / "file", SMALL)


def test_memory_does_not_grow_with_the_events(tmp_path: Path) -> None:
    def measured(events_per_reader: int) -> tuple[int, int]:
        command = [sys.executable, "-c", RSS_PROGRAM, str(tmp_path), str(events_per_reader)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return int(output[0]), int(output[1])

    few, few_mib = measured(25)
    many, many_mib = measured(500)
    assert many > 15 * few
    assert many_mib - few_mib < 15  # the events alone take 20 MiB as JSON


def test_a_world_that_the_disk_does_not_hold_leaves_what_was_there(tmp_path: Path) -> None:
    """`ulimit -f` is as good as a full disk."""
    write_simulation(tmp_path, SMALL)
    before, limit = digests(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limit[1]))
    try:
        with pytest.raises(FullDisk, match=r"the disk of .* is full"):
            write_simulation(tmp_path, msgspec.structs.replace(SMALL, seed=SMALL.seed + 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert digests(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
