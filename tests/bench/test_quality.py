import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench import quality
from bench._machine import this_machine
from bench.quality import Measured, Plan, Report, measure_gap, read_feed
from offline.evaluate.cleaning import NO_NOISE, RULES_ALONE
from offline.evaluate.protocol import SERVED, SIGNALS, STUDENT
from offline.evaluate.retrieval import VectorCache
from offline.simulate import SimulationSettings
from schemas.clients.memory_models import MemoryCleaner, MemoryEmbedder, MemoryStudent
from schemas.config import Config
from schemas.errors import UsageError

PLAN = Plan(
    simulation=SimulationSettings(readers=80, articles=600, events_per_reader=20, days=8),
    gaps=(0.0,),
    readers=15,
    tuning_readers=5,
    with_student=True,
    articles=None,
    news="built-in",
    config=Config(),
)


def report_of(measured: Measured) -> Report:
    return Report(
        machine=this_machine(),
        seed=7,
        news="built-in",
        student=measured.student,
        prompt_version=measured.prompt_version,
        student_weight=0.5,
        signal_weight=1.0,
        seconds=1.0,
        settings=(measured.setting,),
        rows=tuple(measured.rows),
        tuned=tuple(measured.tuned),
        cleaning=tuple(measured.cleaning),
    )


def test_help_shows_an_example() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "bench.quality", "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert "--readers" in shown
    assert "keenstream bench quality --readers 300" in shown


async def test_one_width_of_the_gap_is_measured_and_tuned() -> None:
    measured = await measure_gap(PLAN, 0.5, VectorCache(MemoryEmbedder()), MemoryStudent())
    assert measured.setting.gap == 0.5
    assert measured.setting.readers == 15
    assert {SERVED, STUDENT, SIGNALS} <= {row.system for row in measured.rows}
    assert [row.student_weight for row in measured.tuned] == list(quality.WEIGHTS)
    assert measured.student == "memory-student-1"


async def test_with_a_cleaner_it_is_told_what_that_earns(capsys: pytest.CaptureFixture[str]) -> None:
    words = frozenset({"weather", "calculator", "timer", "horoscope"})
    plan = msgspec.structs.replace(PLAN, with_student=False, with_cleaner=True)
    measured = await measure_gap(plan, 0.0, VectorCache(MemoryEmbedder()), None, MemoryCleaner(words))
    assert {SIGNALS, RULES_ALONE, NO_NOISE} <= {row.system for row in measured.rows}
    gain = next(row for row in measured.cleaning if row.system == SIGNALS)
    assert (gain.version, gain.dropped > 0) == ("memory-cleaner-1", True)
    quality.show(report_of(measured))
    assert "own signals alone (memory-cleaner-1) over the rules alone: Recall@10" in capsys.readouterr().out


async def test_without_anyone_to_judge_the_options_are_named() -> None:
    plan = msgspec.structs.replace(PLAN, simulation=SimulationSettings(readers=1, events_per_reader=1, cold_share=1.0))
    with pytest.raises(UsageError, match="--readers"):
        await measure_gap(plan, 0.0, VectorCache(MemoryEmbedder()), None)


async def test_the_report_is_shown_and_survives_json(capsys: pytest.CaptureFixture[str]) -> None:
    measured = await measure_gap(PLAN, 0.0, VectorCache(MemoryEmbedder()), MemoryStudent())
    report = report_of(measured)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    quality.show(report)
    shown = capsys.readouterr().out
    assert all(row.system in shown and f"{row.recall_at_10.mean:.3f}" in shown for row in report.rows)
    assert "Recall@10 of tuning readers" in shown
    assert "memory-student-1 that reads examples-1" in shown


def test_broken_lines_of_a_feed_are_left_out(tmp_path: Path) -> None:
    feed = tmp_path / "feed.jsonl"
    good = '{"article_id":"a","title":"T","url":"u","source":"s","published_at":1}'
    feed.write_text(f"{good}\nnot json\n")
    found = read_feed(feed)
    assert found is not None
    assert [article.article_id for article in found] == ["a"]
    assert read_feed(None) is None
