"""Two runs in two engines, with writers that take the time they are told, and with tiny models."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from bench import student
from bench._reader_prompts import reader_profiles
from bench._student_runs import RunsReport, WriteAll, measure_runs, take_turns
from offline.training.tiny import write_tiny
from schemas.errors import UsageError
from schemas.profile import UserProfile
from tests.offline.training.world import write_tokenizer

READERS = [UserProfile(f"u{number}") for number in range(12)]


class Bench:
    """A clock, and writers that move it on by so many seconds a list."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[tuple[str, str]] = []

    def clock(self) -> float:
        return self.now

    def writer(self, name: str, seconds: float, text: str) -> WriteAll:
        def write(profiles: Sequence[UserProfile]) -> list[str]:
            self.now += seconds * len(profiles)
            self.asked.append((name, profiles[0].user_id))
            return [text] * len(profiles)

        return write


def test_all_take_turns_on_the_same_readers_and_the_first_round_does_not_count() -> None:
    bench = Bench()
    writers = {
        ("teacher", "transformers"): bench.writer("slow", 2.0, "a b; c"),
        ("student", "openvino"): bench.writer("fast", 0.1, "a"),
    }
    batches = [READERS[start : start + 4] for start in (0, 4, 8)]
    rates, words = take_turns(writers, batches, bench.clock)  # type: ignore[arg-type]
    assert rates["teacher", "transformers"] == pytest.approx([0.5, 0.5])
    assert rates["student", "openvino"] == pytest.approx([10.0, 10.0])
    assert words == {("teacher", "transformers"): 3.0, ("student", "openvino"): 1.0}
    assert bench.asked == [(name, user) for user in ("u0", "u4", "u8") for name in ("slow", "fast")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tokenizer").mkdir()
    write_tokenizer(folder / "tokenizer")
    write_tiny(folder / "tokenizer", folder / "model", tied=True)
    return folder / "model"


def test_two_runs_are_measured_in_both_engines(tiny: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    student.main(prompts=8, rounds=1, max_new_tokens=4, teacher=str(tiny), student=str(tiny), json=report)
    found = msgspec.json.decode(report.read_bytes(), type=RunsReport)
    by = {(row.role, row.engine): row.speed.median for row in found.speeds}
    assert found.served_over_plain_teacher.median == pytest.approx(
        by["student", "openvino"] / by["teacher", "transformers"]
    )
    assert found.same_engine.keys() == {"transformers", "openvino"}
    assert found.teacher == found.student
    assert found.teacher.blocks > 0


def test_one_run_alone_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give both --teacher and --student"):
        student.main(teacher=str(tiny))
    with pytest.raises(UsageError, match="there is no such folder"):
        measure_runs(tmp_path, "./missing", str(tiny), prompts=8, rounds=1, max_new_tokens=4)


def test_as_many_readers_as_were_asked_for_have_a_profile(tmp_path: Path) -> None:
    profiles = reader_profiles(tmp_path, 5)
    assert len({profile.user_id for profile in profiles}) == 5
    assert all(profile.page or profile.search or profile.click for profile in profiles)
