"""One small generated world, made once."""

import pytest

from offline.simulate import Delivery, Impression, SimulationSettings, build_world, simulate_world
from offline.simulate.world import World

SMALL = SimulationSettings(readers=60, articles=600, events_per_reader=25, days=5.0)


@pytest.fixture(scope="session")
def world() -> World:
    return build_world(SMALL)


@pytest.fixture(scope="session")
def simulated(world: World) -> list[Delivery | Impression]:
    return list(simulate_world(SMALL, world))


@pytest.fixture(scope="session")
def deliveries(simulated: list[Delivery | Impression]) -> list[Delivery]:
    return [row for row in simulated if isinstance(row, Delivery)]


@pytest.fixture(scope="session")
def impressions(simulated: list[Delivery | Impression]) -> list[Impression]:
    return [row for row in simulated if isinstance(row, Impression)]
