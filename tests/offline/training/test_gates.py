"""The gates by their curves alone."""

import pytest

from offline.training.gates import ABSTAINED, CLIPPED, HELD_OUT, REWARD, ZERO_VARIANCE, Gates, GateSettings

SETTINGS = GateSettings(window=3)


def reasons(rows: list[dict[str, float]], settings: GateSettings = SETTINGS) -> list[str]:
    gates = Gates(settings)
    return [reason for row in rows if (reason := gates.observe(row))]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({ZERO_VARIANCE: 0.9}, "90% of the groups have equal rewards"),
        ({CLIPPED: 0.4}, "40% of the lists never ended"),
        ({f"{ABSTAINED}judge": 0.25}, "the reward 'judge' abstained in 25%"),
        ({REWARD: 0.0}, "every reward is zero"),
    ],
)
def test_a_limit_stops_once_its_window_is_full(row: dict[str, float], told: str) -> None:
    assert reasons([row] * 2) == []
    assert told in reasons([row] * 3)[0]


@pytest.mark.parametrize("row", [{ZERO_VARIANCE: 0.75}, {CLIPPED: 0.25}, {f"{ABSTAINED}judge": 0.125}, {REWARD: 0.01}])
def test_a_value_below_its_limit_goes_on(row: dict[str, float]) -> None:
    assert reasons([row] * 10) == []


def test_zero_rewards_are_told_as_what_they_are() -> None:
    """Such groups are also equal, and their lists mostly never end."""
    assert "every reward is zero" in reasons([{REWARD: 0.0, ZERO_VARIANCE: 1.0, CLIPPED: 1.0}] * 3)[0]


def test_a_run_that_earned_nothing_is_known_before_a_window_is_full() -> None:
    gates = Gates(SETTINGS)
    gates.observe({HELD_OUT: 0.1})
    assert not gates.nothing_earned
    gates.observe({REWARD: 0.0})
    assert gates.nothing_earned
    gates.observe({REWARD: -0.1})
    gates.observe({REWARD: 0.0})
    assert not gates.nothing_earned


def test_one_bad_step_is_no_reason() -> None:
    assert reasons([{CLIPPED: 0.0}, {CLIPPED: 0.8}, {CLIPPED: 0.0}] * 3) == []


def test_one_reward_bought_with_another_is_seen() -> None:
    before = {REWARD: 1.0, "rewards/align/mean": 0.5, "rewards/coverage/mean": 0.5}
    after = {REWARD: 1.2, "rewards/align/mean": 1.0, "rewards/coverage/mean": 0.2}
    (first, *_) = reasons([before] * 3 + [after] * 3)
    assert "rewards/coverage/mean fell from 0.500 to 0.200" in first


@pytest.mark.parametrize("first", [0.0, -0.022, -0.4])
def test_a_penalty_is_measured_from_its_own_floor(first: float) -> None:
    """It is in [-1, 0]: half of a negative mean is more than the mean, by which every such run would stop."""
    before = {REWARD: 1.0, "rewards/copying/mean": first}
    more = {REWARD: 1.2, "rewards/copying/mean": first - 0.1}
    assert reasons([before] * 3 + [more] * 3) == []
    much_more = {REWARD: 1.2, "rewards/copying/mean": first - (1 + first) / 2 - 0.01}
    (told, *_) = reasons([before] * 3 + [much_more] * 3)
    assert f"rewards/copying/mean fell from {first:.3f}" in told


def test_a_sum_that_falls_with_one_reward_is_no_trade() -> None:
    before = {REWARD: 1.0, "rewards/coverage/mean": 0.5}
    assert reasons([before] * 3 + [{REWARD: 0.5, "rewards/coverage/mean": 0.0}] * 3) == []


def gamed(reward_rises: bool) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = [{HELD_OUT: 0.10}]
    for place, held_out in enumerate((0.12, 0.10, 0.09), start=1):
        rows += [{REWARD: 1.0 + 0.1 * place * reward_rises}] * 3 + [{HELD_OUT: held_out}]
    return rows


def test_a_reward_that_rises_while_the_held_out_measure_falls_is_told() -> None:
    (reason,) = reasons(gamed(reward_rises=True))
    assert "rose from 1.100 to 1.300 while the held-out measure fell from 0.120 to 0.090" in reason


def test_a_fall_of_both_is_not_gaming() -> None:
    assert reasons(gamed(reward_rises=False)) == []


def test_a_small_fall_and_a_recovery_go_on() -> None:
    values = (0.12, 0.115, 0.09, 0.12, 0.09, 0.13)
    assert reasons([row for place, v in enumerate(values) for row in ({REWARD: 1.0 + place}, {HELD_OUT: v})]) == []


def test_replayed_rows_lead_to_the_same_state() -> None:
    rows = gamed(reward_rises=True)
    assert reasons(rows[:7] + rows[7:]) == reasons(rows) != []
