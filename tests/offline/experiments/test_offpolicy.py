"""Another policy judged by a log: unbiased, covered by users, and refused where it must be."""

from functools import cache

import msgspec
import numpy as np
import pytest

from offline.experiments.gates import Gates
from offline.experiments.moments import Floats, Moments, NotEnoughData
from offline.experiments.offpolicy import (
    Estimator,
    Log,
    diagnose,
    difference_sums,
    user_sums,
    value,
)

ITEMS = 4
LOGGING = np.array([0.4, 0.3, 0.2, 0.1])
OTHER = np.array([0.1, 0.2, 0.3, 0.4])


def draw(seed: int, users: int = 400, rows: int = 10, spread: float = 0.15) -> tuple[Log, float]:
    """A log, and the other policy's true value for these users; rows of one user share a taste."""
    drawn = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows)
    chance = np.clip(np.linspace(0.1, 0.4, ITEMS) + drawn.normal(0, spread, size=users)[user, None], 0, 1)
    item = drawn.choice(ITEMS, size=users * rows, p=LOGGING)
    reward = (drawn.random(users * rows) < chance[np.arange(len(user)), item]).astype(float)
    model = np.linspace(0.15, 0.35, ITEMS)  # right in its order, wrong in its size
    log = Log(
        user=user.astype(float),
        reward=reward,
        propensity=LOGGING[item],
        target=OTHER[item],
        predicted=model[item],
        predicted_target=np.full(len(user), float(model @ OTHER)),
    )
    return log, float((chance @ OTHER).mean())


UNBIASED: tuple[Estimator, ...] = ("ips", "beta-ips", "snips", "doubly-robust", "sndr")


@cache
def covered() -> dict[Estimator, tuple[int, int]]:
    """In how many of 1,000 logs each interval holds the truth, by users and by rows as if they were users."""
    population = float(np.mean([draw(seed)[1] for seed in range(200)]))
    held = np.zeros((len(UNBIASED), 2), dtype=int)
    for seed in range(1_000):
        log, _ = draw(seed)
        rows = msgspec.structs.replace(log, user=np.arange(len(log.user), dtype=float))
        units = [Moments.of(user_sums(one)) for one in (log, rows)]
        held += [[value(unit, estimator).interval.holds(population) for unit in units] for estimator in UNBIASED]
    return {estimator: (int(held[n, 0]), int(held[n, 1])) for n, estimator in enumerate(UNBIASED)}


@pytest.mark.parametrize("estimator", UNBIASED)
def test_intervals_over_users_cover_the_truth(estimator: Estimator) -> None:
    held, unclustered = covered()[estimator]
    assert 930 <= held <= 970
    assert unclustered < held  # what counting rows as if they were readers does


def test_the_logging_policy_s_own_value_is_the_mean_reward() -> None:
    log, _ = draw(1)
    same = msgspec.structs.replace(log, target=log.propensity)
    moments = Moments.of(user_sums(same))
    for estimator in ("ips", "beta-ips", "snips", "clipped"):
        assert value(moments, estimator).value == pytest.approx(float(log.reward.mean()))


def test_a_good_reward_model_narrows_the_interval_and_a_bad_one_is_corrected() -> None:
    log, truth = draw(2, users=4_000, spread=0.0)
    moments = Moments.of(user_sums(log))
    robust, plain = value(moments, "doubly-robust"), value(moments, "ips")
    assert robust.standard_error < plain.standard_error
    assert abs(value(moments, "direct").value - truth) > 4 * robust.standard_error  # the model alone is wrong
    assert abs(robust.value - truth) < 4 * robust.standard_error


def test_clipping_never_raises_the_estimate() -> None:
    log, _ = draw(3)
    moments = Moments.of(user_sums(log, clip=1.5))
    assert value(moments, "clipped").value < value(moments, "ips").value


def test_paired_weights_make_a_small_difference_visible() -> None:
    log, _ = draw(4, users=2_000)
    item_gain = np.where(log.propensity == LOGGING[0], -0.02, 0.0) + np.where(log.propensity == LOGGING[3], 0.02, 0.0)
    nearly = msgspec.structs.replace(log, target=log.target + item_gain)
    paired = value(Moments.of(difference_sums(log, nearly)), "ips")
    apart = [value(Moments.of(user_sums(one)), "ips").standard_error for one in (log, nearly)]
    assert paired.standard_error < 0.4 * float(np.hypot(apart[0], apart[1]))
    assert paired.interval.low > 0


def gates_of(log: Log, **changes: float) -> tuple[str, ...]:
    largest = float((log.target / log.propensity).max())
    return diagnose(Moments.of(user_sums(log)), largest, Gates(**changes)).failures


def test_a_sound_log_passes_its_gates() -> None:
    assert gates_of(draw(5)[0]) == ()


def test_each_gate_says_what_is_wrong() -> None:
    log, _ = draw(6)
    missing = msgspec.structs.replace(log, target=np.where(log.propensity == LOGGING[3], 0.0, log.target))
    assert "lacks support" in gates_of(missing)[0]
    assert "effective rows" in gates_of(log, min_effective_rows=1e6)[0]
    heavy = log.propensity.copy()
    heavy[0] = 1e-4
    assert any("of all weight" in text for text in gates_of(msgspec.structs.replace(log, propensity=heavy)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"propensity": 0.0}, "above 0 and at most 1"),
        ({"propensity": 1.2}, "above 0 and at most 1"),
        ({"propensity": 1.0}, "deterministic"),
        ({"target": -0.1}, "between 0 and 1"),
    ],
)
def test_logs_that_no_estimator_can_use_are_refused(changes: dict[str, float], reason: str) -> None:
    log, _ = draw(7)
    filled: dict[str, Floats] = {name: np.full_like(log.reward, number) for name, number in changes.items()}
    with pytest.raises(NotEnoughData, match=reason):
        user_sums(msgspec.structs.replace(log, **filled))


@pytest.mark.parametrize("estimator", ["beta-ips", "sndr"])
def test_the_error_is_the_spread_over_logs(estimator: Estimator) -> None:
    """The variance by gradients against the variance of the estimates themselves, and the baseline does its work."""
    found = [value(Moments.of(user_sums(draw(seed)[0])), estimator) for seed in range(400)]
    spread = np.std([one.value for one in found])
    assert np.mean([one.standard_error for one in found]) == pytest.approx(float(spread), rel=0.1)
    plain = [value(Moments.of(user_sums(draw(seed)[0])), "ips").value for seed in range(400)]
    assert spread < 0.95 * np.std(plain)
