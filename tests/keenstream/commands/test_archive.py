"""`keenstream archive` without a broker: what it lists, and how it refuses."""

import json
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keenstream.commands.archive import app
from schemas.errors import Unavailable, UsageError
from schemas.names import Topic
from stream.archive.ranges import Ranges
from tests.stream.archive.consumed import DAY, NOON, event_rows


class Command:
    """`keenstream archive`, in this process, on one folder and without a broker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("KEENSTREAM_KAFKA_BOOTSTRAP", "127.0.0.1:1")

    def __call__(self, folder: Path, *arguments: str) -> str:
        """What it prints. Raises what the command raises."""
        self._monkeypatch.setenv("KEENSTREAM_ARCHIVE_FOLDER", str(folder))
        return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    days = [(date(2026, 1, 5), event_rows([0, 1])), (date(2026, 1, 4), event_rows([2], NOON - DAY))]
    Ranges(tmp_path / Topic.USER_EVENTS, 0).commit(0, 2, [*days, (None, event_rows([3], 0))])
    return tmp_path


def test_list_shows_each_day_of_each_topic(folder: Path, run: Command) -> None:
    listed = [(row["topic"], row["day"], row["rows"]) for row in json.loads(run(folder, "list", "--json"))]
    assert listed == [
        (Topic.USER_EVENTS, "2026-01-04", 1),
        (Topic.USER_EVENTS, "2026-01-05", 2),
        (Topic.USER_EVENTS, "implausible", 1),
    ]
    assert "2026-01-05" in run(folder, "list", "--topic", Topic.USER_EVENTS)
    assert json.loads(run(folder, "list", "--topic", Topic.OUTCOMES, "--json")) == []


def test_what_is_not_there_is_said(folder: Path, run: Command) -> None:
    assert "Nothing is archived" in run(folder / "empty", "list").replace("\n", " ")
    with pytest.raises(UsageError, match="there is no archive in"):
        run(folder / "empty", "verify")
    with pytest.raises(UsageError, match="profiles is not archived; there are: user-events"):
        run(folder, "list", "--topic", "profiles")


def test_a_dry_run_of_a_replay_needs_no_broker(folder: Path, run: Command) -> None:
    span = ("--from", "2026-01-04", "--to", "2026-01-05", "--dry-run")
    result = json.loads(run(folder, "replay", *span, "--json"))
    assert (result["files"], result["events"], result["sent"]) == (2, 3, 0)
    assert "3 events would be sent, from 2 files" in run(folder, "replay", *span)


def test_a_span_that_ends_before_it_begins_is_wrong_usage(folder: Path, run: Command) -> None:
    with pytest.raises(UsageError, match="is after"):
        run(folder, "replay", "--from", "2026-01-05", "--to", "2026-01-04")


def test_without_a_broker_verify_says_how_to_start_one(folder: Path, run: Command) -> None:
    with pytest.raises(Unavailable, match="keenstream stack up"):
        run(folder, "verify")
