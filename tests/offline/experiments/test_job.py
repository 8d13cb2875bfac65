"""The job: equal to pandas on the raw rows, and blind to sharding, order, repetition and lateness; a rerun is the same.

The steps run one after another here; test_job_runners.py has the runners.
"""

import random
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.experiments.adding import AddUp
from offline.experiments.analyse import analyse
from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Count, Metric
from offline.experiments.moments import Moments
from offline.experiments.tally_file import Totals, read_totals, write_totals
from schemas.errors import KeenstreamError, UsageError
from schemas.experiment import assign_arm
from schemas.exposure import Exposure
from schemas.names import Topic
from tests.offline.experiments.log_folders import NOW_MS, as_row, planned, shuffled, sound_log, totals, write_log
from tests.offline.experiments.log_rows import ANALYSIS, START_MS
from tests.offline.experiments.trap_logs import clicks_on, make_log, put

WINDOW_MS = round(ANALYSIS.window_days * DAY_MS)
seeds = st.integers(min_value=0, max_value=10_000)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def fresh(folders: Path) -> Path:
    """A new folder below the session's."""
    return folders / f"{len(list(folders.iterdir()))}"


def plain(found: Totals) -> object:
    """All cells but for rounding."""
    return [
        (key, cell.exposed, cell.crossed, cell.waiting, [np.round(m.mean, 9).tolist() for m in cell.moments])
        for key, cell in sorted(found.tally.cells.items())
    ]


def test_click_through_by_pandas(folders: Path) -> None:
    exposures, outcomes = sound_log(11, users=80, early=True)
    folder = write_log(fresh(folders), (exposures, outcomes), files=3)
    found = totals(ANALYSIS, folder, folder / "out", buckets=4)
    for arm in ("control", "treatment"):
        rows = by_pandas(pd.DataFrame(map(as_row, exposures)), pd.DataFrame(map(as_row, outcomes)), arm)
        moments = found.tally.total(lambda key, arm=arm: key.arm == arm).moments[0]  # type: ignore[misc]
        assert moments.count == len(rows)
        np.testing.assert_allclose(moments.mean[:2], rows.mean(), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance()[:2, :2], rows.cov(), rtol=1e-9)


def by_pandas(exposures: pd.DataFrame, outcomes: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Clicks and impressions of each reader of `arm`, in the window, those of one arm whose window has passed."""
    watermark = max(exposures.exposed_at.max(), outcomes.occurred_at.max())
    inside = exposures[exposures.experiment == "path"].sort_values(["exposed_at", "exposure_id"])
    readers = inside.groupby("user_id").agg(
        start=("exposed_at", "first"), arm=("arm", "first"), arms=("arm", "nunique")
    )
    readers = readers[(readers.arm == arm) & (readers.arms == 1) & (readers.start + WINDOW_MS <= watermark)]
    answered = exposures.groupby("request_id").exposed_at.min().rename("answered")
    clicks = outcomes[outcomes.kind == "click"].merge(answered, on="request_id", how="left")
    clicks = clicks[clicks.answered.isna() | (clicks.occurred_at >= clicks.answered)]
    clicks = in_window(clicks.rename(columns={"occurred_at": "at"}), readers)
    shown = in_window(exposures[exposures.article_id.notna()].rename(columns={"exposed_at": "at"}), readers)
    counted = pd.DataFrame({"clicks": clicks.groupby("user_id").size(), "shown": shown.groupby("user_id").size()})
    return counted.reindex(readers.index).fillna(0.0)


def in_window(rows: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    joined = rows.merge(readers.start, left_on="user_id", right_index=True)
    return joined[(joined["at"] >= joined.start) & (joined["at"] <= joined.start + WINDOW_MS)]


@settings(max_examples=6, deadline=None)
@given(seeds, st.integers(min_value=1, max_value=5), st.integers(min_value=1, max_value=6))
def test_shards_order_and_repeated_lines_change_nothing(folders: Path, seed: int, files: int, buckets: int) -> None:
    log = sound_log(seed, early=True)
    once = totals(ANALYSIS, write_log(fresh(folders), log), fresh(folders))
    again = write_log(fresh(folders), shuffled(log, seed), files=files, row_group=7)
    assert plain(totals(ANALYSIS, again, fresh(folders), buckets=buckets)) == plain(once)


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_what_arrives_late_is_as_if_it_had_been_in_time(folders: Path, seed: int) -> None:
    """Late rows lie in later files, of other partitions and days; the watermark stays where it was put."""
    exposures, outcomes = sound_log(seed, early=True)
    ends = msgspec.structs.replace(
        ANALYSIS, ends_at=pd.Timestamp(START_MS + 3 * DAY_MS, unit="ms", tz="UTC").to_pydatetime()
    )
    whole = totals(ends, write_log(fresh(folders), (exposures, outcomes)), fresh(folders))
    late = random.Random(seed).sample(outcomes, len(outcomes) // 3)
    folder = write_log(fresh(folders), (exposures, [row for row in outcomes if row not in late]))
    late_folder = write_log(fresh(folders), ([], late))
    (file,) = late_folder.rglob("outcomes/*/*.parquet")
    (folder / "outcomes" / "date=2026-12-24").mkdir()
    file.rename(folder / "outcomes" / "date=2026-12-24" / "7-0-9.parquet")
    assert plain(totals(ends, folder, fresh(folders))) == plain(whole)


def test_a_thousand_readers_in_a_cell_give_the_same_bytes_however_the_log_is_cut(tmp_path: Path) -> None:
    """Sums of seconds and medians too; and medians whatever the number of buckets."""
    exposures, _ = make_log(8, 3_600, days=1, base=2.0)
    drawn = np.random.default_rng(9)
    dwells = put(clicks_on(exposures, "dwell"), "value", np.round(drawn.lognormal(4, 1, exposures.num_rows), 1))
    dwells = dwells.take(drawn.permutation(exposures.num_rows)[:9_000])
    median = Metric(name="median", numerator=Count(of="dwell", aggregate="sum"), quantile=0.5)
    analysis = msgspec.structs.replace(ANALYSIS, metrics=(*ANALYSIS.metrics, median))
    found = []
    for number, (files, buckets) in enumerate(((1, 3), (4, 3), (2, 7))):
        rows = [table.take(drawn.permutation(table.num_rows)) for table in (exposures, dwells)]
        for name, table in zip((Topic.EXPOSURES, Topic.OUTCOMES), rows, strict=True):
            (tmp_path / f"{number}" / name).mkdir(parents=True)
            for file in range(files):
                part = table.take(np.arange(file, table.num_rows, files))
                pq.write_table(part, tmp_path / f"{number}" / name / f"{file}.parquet", row_group_size=4_000)
        found.append(totals(analysis, tmp_path / f"{number}", tmp_path / f"out-{number}", buckets=buckets))
    written = [Path(write_totals(one, str(tmp_path / "totals.json"))).read_bytes() for one in found]
    assert written[0] == written[1]
    cells = [{key: (cell.exposed, cell.sketches) for key, cell in one.tally.cells.items()} for one in found]
    assert cells[0] == cells[2]
    assert max(cell.exposed for cell in found[0].tally.cells.values()) > 1_000


def test_a_closed_day_gives_the_same_bytes_again(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", sound_log(3, users=40), files=2)
    capped = Metric(name="dwell", numerator=Count(of="dwell", aggregate="sum", cap=0.9))
    analysis = msgspec.structs.replace(ANALYSIS, metrics=(*ANALYSIS.metrics, capped))
    for out in ("first", "second"):
        analyse(analysis, folder, tmp_path / out, now_ms=NOW_MS)
    report = (tmp_path / "first" / "report.json").read_bytes()
    assert report == (tmp_path / "second" / "report.json").read_bytes()
    assert msgspec.json.decode(report)["watermark_ms"] > START_MS
    kept = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert kept == ["report.html", "report.json"]  # no scratch stays


def test_another_assignment_than_the_rule_is_counted(folders: Path) -> None:
    exposures, outcomes = sound_log(4, users=40)
    by_rule = [msgspec.structs.replace(row, arm=drawn_arm(row)) for row in exposures]
    wrong = [msgspec.structs.replace(row, arm="treatment" if row.experiment else "") for row in by_rule]
    found, other = (
        totals(ANALYSIS, write_log(fresh(folders), (rows, outcomes)), fresh(folders)) for rows in (by_rule, wrong)
    )
    assert (found.log.assigned, found.log.reassigned) == (len({r.user_id for r in exposures if r.experiment}), 0)
    assert other.log.reassigned == len({row.user_id for row in by_rule if row.arm == "control"})


def drawn_arm(row: Exposure) -> str:
    drawn = assign_arm(row.user_id, ANALYSIS.experiment, row.exposed_at).arm
    return drawn.name if row.experiment and drawn else ""


def test_a_file_that_breaks_while_it_is_read_ends_the_run_with_its_name(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", sound_log(5, users=200))
    (file,) = (folder / "exposures").rglob("*.parquet")
    data = bytearray(file.read_bytes())
    data[4:600] = bytes(596)
    file.write_bytes(data)
    with pytest.raises(UsageError, match=r"0-0-0\.parquet, row group 0: cannot be read"):
        analyse(ANALYSIS, folder, tmp_path / "out", now_ms=NOW_MS)


def test_no_exposures_and_no_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no exposures at"):
        planned(ANALYSIS, tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="is no folder"):
        planned(ANALYSIS, tmp_path / "none", tmp_path / "out")


def test_totals_survive_their_file(tmp_path: Path) -> None:
    found = totals(ANALYSIS, write_log(tmp_path / "log", sound_log(6)), tmp_path / "out", buckets=3)
    read = read_totals(Path(write_totals(found, str(tmp_path / "totals.json"))))
    assert plain(read) == plain(found)
    assert (read.log, read.watermark_ms, read.tally.counts) == (found.log, found.watermark_ms, found.tally.counts)
    with pytest.raises(KeenstreamError, match="without a result"):
        read_totals(tmp_path / "none.json")


@given(st.permutations(range(9)), st.integers(min_value=1, max_value=8))
def test_the_sum_of_buckets_has_the_same_bits_in_any_order_and_grouping(order: list[int], cut: int) -> None:
    drawn = np.random.default_rng(1)
    leaves = [((0, n), Moments.of(1e6 + drawn.standard_normal((5, 2)) ** 3)) for n in range(9)]
    adding = AddUp()
    parts = [dict(leaves[n] for n in order[:cut]), {}]
    for n in order[cut:]:
        parts[1] = adding.add_input(parts[1], leaves[n])
    found = adding.extract_output(adding.merge_accumulators(parts))
    whole = adding.extract_output(adding.merge_accumulators([dict([leaf]) for leaf in leaves]))
    assert found.mean.tobytes() == whole.mean.tobytes()
    assert found.products.tobytes() == whole.products.tobytes()
