"""A simulated world: news, readers, what they do, and the truth behind it. Same settings, same bytes."""

from offline.simulate.delivery import Delivery, simulate_world
from offline.simulate.impressions import Impression
from offline.simulate.settings import SimulationSettings, checked, run_id
from offline.simulate.writing import (
    ARTICLES_FILE,
    EVENTS_FILE,
    IMPRESSIONS_FILE,
    TRUTH_FILE,
    SimulationSummary,
    build_world,
    write_simulation,
)

__all__ = [
    "ARTICLES_FILE",
    "EVENTS_FILE",
    "IMPRESSIONS_FILE",
    "TRUTH_FILE",
    "Delivery",
    "Impression",
    "SimulationSettings",
    "SimulationSummary",
    "build_world",
    "checked",
    "run_id",
    "simulate_world",
    "write_simulation",
]
