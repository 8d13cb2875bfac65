"""Profiles of simulated readers, for benchmarks that write lists."""

from pathlib import Path

import msgspec

from offline.simulate import EVENTS_FILE, SimulationSettings, write_simulation
from schemas.errors import UsageError
from schemas.event import Event
from schemas.profile import UserProfile, fold_event

LEAST_EVENTS = 3  # of a reader whose profile is rendered


def reader_profiles(folder: Path, count: int) -> list[UserProfile]:
    """Of `count` simulated readers; UsageError when too few have enough events."""
    write_simulation(folder, SimulationSettings(readers=2 * count, articles=500))
    profiles: dict[str, UserProfile] = {}
    events: dict[str, int] = {}
    for line in (folder / EVENTS_FILE).read_bytes().splitlines():
        event = msgspec.json.decode(line, type=Event)
        before = profiles.get(event.user_id, UserProfile(event.user_id))
        profiles[event.user_id] = fold_event(before, event, signals_per_domain=50)
        events[event.user_id] = events.get(event.user_id, 0) + 1
    known = [profile for user, profile in profiles.items() if events[user] >= LEAST_EVENTS]
    if len(known) < count:
        raise UsageError(f"{len(known)} readers have enough events: ask for fewer prompts or rounds")
    return known[:count]
