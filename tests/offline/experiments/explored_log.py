"""A log of answers with a share of random order, whose other policies' values are known in closed form."""

from typing import Final

import msgspec
import numpy as np

from offline.experiments.definition import Analysis, OffPolicy, Policy
from schemas.experiment import Arm
from schemas.exploration import arrange
from schemas.exposure import Exposure, Outcome
from tests.offline.experiments.log_rows import ANALYSIS, EXPERIMENT, HALVES, START_MS

SHARE: Final = 0.4
PLACES, POOL = 3, 8
RANKED_CHANCE, OTHER_CHANCE = 0.30, 0.08  # of a click at place 1; divided by the place
ASKED = OffPolicy(policies=(Policy(name="ranking", exploration=0.0), Policy(name="random", exploration=1.0)))
EXPLORING: Final[Analysis] = msgspec.structs.replace(
    ANALYSIS,
    experiment=msgspec.structs.replace(
        EXPERIMENT,
        arms=(Arm(name="control", path=False), Arm(name="treatment", exploration=SHARE)),
        phases=(msgspec.structs.replace(EXPERIMENT.phases[0], weights=HALVES),),
    ),
    window_days=0.5,
    offpolicy=ASKED,
)


def true_value(exploration: float) -> float:
    """The mean reward of a place when this share of answers is drawn at random from the pool."""
    ranked = (1 - exploration) + exploration / POOL
    by_place = 1 / np.arange(1, PLACES + 1)
    return float(np.mean((ranked * RANKED_CHANCE + (1 - ranked) * OTHER_CHANCE) * by_place))


def explored_log(seed: int, users: int) -> tuple[list[Exposure], list[Outcome]]:
    """Readers differ in how often they click and how often they come: rows of one are alike."""
    drawn = np.random.default_rng(seed)
    exposures: list[Exposure] = []
    outcomes: list[Outcome] = []
    for user in range(users):
        taste = drawn.gamma(10, 0.1)
        for answer in range(1 + drawn.poisson(2)):
            request, at = f"r{user}-{answer}", START_MS + int(drawn.integers(86_400_000))
            placed = arrange(range(PLACES), range(PLACES, POOL), share=SHARE, request_id=f"{seed}-{request}")
            for place, shown in enumerate(placed):
                row = _exposure(f"u{user}", request, place, shown.item, shown.propensity, at)
                exposures.append(row)
                chance = RANKED_CHANCE if shown.item == place else OTHER_CHANCE
                if drawn.random() < taste * chance / (place + 1):
                    outcomes.append(_click(row))
    return exposures, outcomes


def _exposure(user: str, request: str, place: int, item: int, propensity: float, at: int) -> Exposure:
    return Exposure(
        exposure_id=f"{request}:{place + 1}",
        request_id=request,
        user_id=user,
        experiment="path",
        arm="treatment",
        triggered=True,
        position=place + 1,
        article_id=f"a{item}",
        propensity=propensity,
        source="student",
        exposed_at=at,
    )


def _click(row: Exposure) -> Outcome:
    return Outcome(
        outcome_id=f"click-{row.exposure_id}",
        request_id=row.request_id,
        user_id=row.user_id,
        article_id=row.article_id,
        kind="click",
        occurred_at=row.exposed_at + 5_000,
    )
