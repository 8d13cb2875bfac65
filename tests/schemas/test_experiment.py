"""Who is in which arm: stable, in the declared shares, independent between experiments."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UsageError
from schemas.experiment import (
    Arm,
    Experiment,
    Phase,
    assign_arm,
    check_experiment,
    check_experiments,
    running_experiment,
)

START = datetime(2026, 11, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
HALVES = {"control": 0.5, "treatment": 0.5}
READERS = [f"reader-{number}" for number in range(20_000)]


def experiment(**changes: object) -> Experiment:
    arms = (Arm(name="control", path=False), Arm(name="treatment"))
    made = Experiment(name="path", salt="s1", arms=arms, phases=(Phase(starts_at=START, weights=HALVES),))
    return msgspec.structs.replace(made, **changes)


def share(of: Experiment, arm: str, at_ms: int = START_MS) -> float:
    drawn = [assign_arm(reader, of, at_ms).arm for reader in READERS]
    return sum(found is not None and found.name == arm for found in drawn) / len(READERS)


def test_known_assignments_never_change() -> None:
    drawn = [assign_arm(reader, experiment(), START_MS).arm for reader in READERS[:12]]
    assert "".join(arm.name[0] for arm in drawn if arm) == "ttttctcccctc"


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0])
def test_shares_are_the_weights(weight: float) -> None:
    phases = (Phase(starts_at=START, weights={"control": 1 - weight, "treatment": weight}),)
    assert share(experiment(phases=phases), "treatment") == pytest.approx(weight, abs=0.012)  # 3.4 standard errors


def test_nobody_is_assigned_before_the_first_phase() -> None:
    assert assign_arm("reader-1", experiment(), START_MS - 1).arm is None


def test_the_holdout_is_the_same_in_every_experiment() -> None:
    first, second = experiment(holdout=0.2), experiment(holdout=0.2, salt="s2")
    out = [{r for r in READERS if assign_arm(r, e, START_MS).arm is None} for e in (first, second)]
    assert out[0] == out[1]
    assert len(out[0]) / len(READERS) == pytest.approx(0.2, abs=0.012)


def test_arms_of_two_experiments_are_independent() -> None:
    def treated(salt: str) -> set[str]:
        drawn = {r: assign_arm(r, experiment(salt=salt), START_MS).arm for r in READERS}
        return {r for r, arm in drawn.items() if arm and arm.name == "treatment"}

    assert len(treated("s1") & treated("s2")) / len(READERS) == pytest.approx(0.25, abs=0.012)


def test_a_phase_draws_anew_and_says_which_it_is() -> None:
    later = datetime(2026, 11, 8, tzinfo=UTC)
    ramped = experiment(phases=(Phase(starts_at=START, weights=HALVES), Phase(starts_at=later, weights=HALVES)))
    at = int(later.timestamp() * 1000)
    assert {assign_arm("reader-1", ramped, at - 1).phase, assign_arm("reader-1", ramped, at).phase} == {0, 1}
    moved = sum(assign_arm(r, ramped, START_MS).arm != assign_arm(r, ramped, at).arm for r in READERS)
    assert moved / len(READERS) == pytest.approx(0.5, abs=0.012)


def test_an_override_wins_over_weights_and_holdout() -> None:
    forced = experiment(holdout=1.0, overrides={"editor": "treatment"})
    found = assign_arm("editor", forced, START_MS)
    assert found.overridden
    assert found.arm == Arm(name="treatment")


@given(st.text(min_size=1, max_size=128), st.integers(min_value=START_MS, max_value=START_MS + 10**10))
def test_within_a_phase_time_changes_nothing(user_id: str, at_ms: int) -> None:
    assert assign_arm(user_id, experiment(), at_ms) == assign_arm(user_id, experiment(), START_MS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phases": (Phase(starts_at=START, weights={"control": 0.5, "treatment": 0.6}),)}, r"add up to 1\.1"),
        ({"phases": (Phase(starts_at=START, weights={"control": 1.0}),)}, "one weight for each of control, treatment"),
        ({"phases": (Phase(starts_at=datetime(2026, 11, 1), weights=HALVES),)}, "needs a time zone"),
        ({"phases": (Phase(starts_at=START, weights=HALVES),) * 2}, "one after another"),
        ({"overrides": {"editor": "red"}}, "unknown arm red"),
        ({"arms": (Arm(name="control"), Arm(name="control"))}, "different names"),
        ({"ends_at": datetime(2027, 1, 1)}, "time zone"),
        ({"ends_at": START}, "later than the last phase"),
    ],
)
def test_parts_that_do_not_agree_are_named(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_experiment(experiment(**changes))


def test_a_sound_experiment_passes() -> None:
    assert check_experiment(experiment()) == experiment()


def test_after_its_end_nobody_is_assigned() -> None:
    ended = experiment(ends_at=START + timedelta(days=14), overrides={"editor": "treatment"})
    last_ms = START_MS + 14 * 86_400_000 - 1
    assert assign_arm("reader-1", ended, last_ms).arm is not None
    assert assign_arm("reader-1", ended, last_ms + 1) == assign_arm("editor", ended, last_ms + 1)
    assert assign_arm("editor", ended, last_ms + 1).arm is None


class TestSeveral:
    def following(self, **changes: object) -> Experiment:
        phases = (Phase(starts_at=START + timedelta(days=14), weights=HALVES),)
        return experiment(**{"name": "next", "salt": "s2", "phases": phases, **changes})

    def test_one_after_another_is_right_and_the_running_one_is_found(self) -> None:
        first = experiment(ends_at=START + timedelta(days=14))
        both = check_experiments([self.following(), first])
        at = [START_MS - 1, START_MS, START_MS + 14 * 86_400_000]
        found = [running_experiment(both, moment) for moment in at]
        assert [one.name if one else None for one in found] == [None, "path", "next"]

    def test_two_at_the_same_time_are_refused(self) -> None:
        with pytest.raises(UsageError, match="give path an ends_at"):
            check_experiments([experiment(), self.following()])

    @pytest.mark.parametrize(("changes", "reason"), [({"name": "path"}, "the name path"), ({"salt": "s1"}, "salt s1")])
    def test_names_and_salts_are_not_shared(self, changes: dict[str, object], reason: str) -> None:
        first = experiment(ends_at=START + timedelta(days=14))
        with pytest.raises(UsageError, match=reason):
            check_experiments([first, self.following(**changes)])
