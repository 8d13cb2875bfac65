import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from offline.event_log import event_times, log_parts, read_events
from offline.runners import RunnerSettings
from offline.simulate import EVENTS_FILE, SimulationSettings, write_simulation
from offline.training import prepare
from offline.training.example_set import ExamplesManifest, load_articles, load_clicks, load_split, read_manifest
from offline.training.examples import SPLITS, Example, FoldReader, ReaderState
from offline.training.preparation import PrepareSettings, make_moments, prepare_examples
from schemas.codec import EVENTS
from schemas.config import Profiles
from schemas.errors import FullDisk, UsageError
from schemas.event import Event
from tests.offline import beam_runners

WORLD = SimulationSettings(readers=120, articles=600, events_per_reader=20, days=6)
SETTINGS = PrepareSettings(buckets=3)
LOCAL = RunnerSettings()


def quiet(step: str, done: int, total: int) -> None:
    assert done <= total


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_simulation(folder, WORLD)
    return folder


@pytest.fixture(scope="module")
def prepared(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "examples"
    prepare_examples(log, out, SETTINGS, LOCAL, quiet)
    return out


def run(log: Path, out: Path, runner: RunnerSettings = LOCAL, **changes: int) -> ExamplesManifest:
    return prepare_examples(log, out, msgspec.structs.replace(SETTINGS, **changes), runner, quiet)


def test_the_job_gives_what_a_plain_loop_gives(log: Path, prepared: Path) -> None:
    manifest = read_manifest(prepared)
    fold = FoldReader(manifest.moments, Profiles())
    states: dict[str, ReaderState | None] = {}
    for part in log_parts(log):
        for event in read_events(part):
            assert event is not None
            states[event.user_id] = fold.add_input(states.get(event.user_id), event)
    wanted = [example for _, state in sorted(states.items()) for example in fold.extract_output(state)]
    found = [example for name in SPLITS for example in load_split(prepared, name)]
    assert sorted(found, key=_key) == sorted(wanted, key=_key)
    assert manifest.events == sum(1 for _ in (log / EVENTS_FILE).open())
    assert load_clicks(prepared).num_rows == len({(u, c) for u, s in states.items() if s for c in s.history})


def _key(example: Example) -> tuple[str, int]:
    return example.user_id, example.at_ms


def test_splits_share_no_reader_and_training_ends_before_the_others_begin(prepared: Path) -> None:
    splits = {name: load_split(prepared, name) for name in SPLITS}
    readers = [{row.user_id for row in rows} for rows in splits.values()]
    assert all(readers) and sum(map(len, readers)) == len(set.union(*readers))
    assert max(row.until_ms for row in splits["training"]) <= min(row.at_ms for row in splits["held_out"])
    assert load_clicks(prepared)["occurred_at"].to_pylist()[-1] <= splits["held_out"][0].at_ms


def test_the_manifest_names_sources_and_articles(log: Path, prepared: Path) -> None:
    manifest = read_manifest(prepared)
    assert [source.name for source in manifest.sources] == ["events.jsonl", "articles.jsonl"]
    assert manifest.sources[0].bytes == (log / EVENTS_FILE).stat().st_size
    assert len(load_articles(prepared)) == manifest.articles == WORLD.articles
    assert manifest.prompt_version == "bare-1"


@pytest.fixture(params=["local processes", "prism", "dask"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunnerSettings]:
    if request.param == "local processes":
        yield RunnerSettings(workers=2)
    elif request.param == "dask":
        with beam_runners.dask(tmp_path) as settings:
            yield settings
    else:
        with beam_runners.prism(tmp_path) as settings:
            yield settings


def test_every_runner_gives_the_same(log: Path, prepared: Path, tmp_path: Path, runner: RunnerSettings) -> None:
    assert run(log, tmp_path / "out", runner) == read_manifest(prepared)


def test_more_moments_give_more_training_examples_and_the_same_held_out_ones(
    log: Path, prepared: Path, tmp_path: Path
) -> None:
    settings = msgspec.structs.replace(SETTINGS, window_days=1.0)
    one = prepare_examples(log, tmp_path / "one", settings, LOCAL, quiet)
    three = prepare_examples(
        log, tmp_path / "three", msgspec.structs.replace(settings, training_moments=3), RunnerSettings(), quiet
    )
    assert three.splits["training"].examples > 2 * one.splits["training"].examples
    assert load_split(tmp_path / "one", "held_out") == load_split(tmp_path / "three", "held_out")


def test_parts_of_a_file_hold_each_line_once(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [event for part in log_parts(log) for event in read_events(part)]
    monkeypatch.setattr("offline.event_log.RANGE_BYTES", 10_007)
    parts = log_parts(log)
    assert len(parts) > 10
    assert [event for part in parts for event in read_events(part)] == whole
    times = [event_times(part) for part in parts]
    assert min(t[0] for t in times if t) == min(event.occurred_at for event in whole if event)


def write_events(folder: Path, log: Path, events: list[Event]) -> Path:
    folder.mkdir()
    (folder / "articles.jsonl").write_bytes((log / "articles.jsonl").read_bytes())
    (folder / EVENTS_FILE).write_bytes(b"".join(EVENTS.encode(event) + b"\n" for event in events))
    return folder


def search(user: str, at: int) -> Event:
    return Event(event_id=f"{user}{at}", user_id=user, kind="search", text="ohio storm", occurred_at=at)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([search("u1", at) for at in range(0, 1000, 10)], "holds 1 reader"),
        ([search(f"u{at}", at) for at in range(0, 1000, 10)], "no reader clicked"),
        ([], "holds no events"),
        ([search(f"u{n}", 7) for n in range(4)], "covers 0.00 days"),
    ],
)
def test_a_log_that_teaches_nothing_is_refused(log: Path, tmp_path: Path, events: list[Event], message: str) -> None:
    bad = write_events(tmp_path / "bad", log, events)
    with pytest.raises(UsageError, match=message):
        run(bad, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_a_folder_without_a_log_or_with_another_file_is_refused(log: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no events: name an archive"):
        run(tmp_path, tmp_path / "out")
    bad = write_events(tmp_path / "bad", log, [search("u1", 1), search("u2", 100_000)])
    with (bad / EVENTS_FILE).open("ab") as file:
        file.write(b'{"broken": 1}\n' * 5)
    with pytest.raises(UsageError, match="5 of 7 lines are no events"):
        run(bad, tmp_path / "out")


@pytest.mark.parametrize("seam", ["write_spilled", "write_shard", "write_counts"])
def test_a_full_disk_is_told_and_leaves_nothing(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seam: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, seam, full)
    with pytest.raises(FullDisk, match=r"the disk of .* is full \(No space left on device\)"):
        run(log, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_may_be_written_may_have_a_limit(log: Path, tmp_path: Path) -> None:
    """`ulimit -f`, which is as good as a full disk and needs none."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(FullDisk, match=r"the disk of .* is full"):
            run(log, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_news_of_another_time_than_the_events_is_refused(log: Path, tmp_path: Path) -> None:
    old = write_events(tmp_path / "old", log, [search(f"u{n}", 1_900_000_000_000 + n) for n in range(100)])
    with pytest.raises(UsageError, match=r"the newest article is \d+\.\d days older than the examples: prepare them"):
        run(old, tmp_path / "out")
    (old / "articles.jsonl").write_bytes(b"")
    with pytest.raises(UsageError, match="the log holds no articles"):
        run(old, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_moments_lie_one_window_apart_and_want_history() -> None:
    moments = make_moments(0, 1_000, PrepareSettings(training_moments=2))
    assert [(m.at_ms, m.until_ms, m.training) for m in moments] == [
        (250, 500, True),
        (500, 750, True),
        (750, 1_000, False),
    ]
    with pytest.raises(UsageError, match="fewer --moments"):
        make_moments(0, 1_000, PrepareSettings(training_moments=3))


def test_shards_that_are_gone_are_noticed(prepared: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    next((copy / "held_out").glob("*.parquet")).unlink()
    with pytest.raises(UsageError, match="files are missing"):
        load_split(copy, "held_out")
    with pytest.raises(UsageError, match="holds no examples"):
        read_manifest(tmp_path)
