"""What a simulation is made of. The same settings give the same bytes."""

import hashlib
from typing import Annotated

import msgspec

from offline.simulate.noise import NoiseTexts
from schemas.errors import UsageError
from schemas.event import Milliseconds

DAY_MS = 86_400_000
MONDAY_5_JANUARY_2026_MS = 1_767_571_200_000

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class SimulationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shares are of events (noise: of pages and searches; cold: of readers); times are UTC."""

    seed: int = 7
    readers: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 500
    events_per_reader: Annotated[float, msgspec.Meta(ge=1.0, le=100_000.0)] = 40.0  # mean of readers who are not cold
    articles: Annotated[int, msgspec.Meta(ge=1, le=50_000)] = 4_000  # of the built-in news world; given ones all count
    start_ms: Milliseconds = MONDAY_5_JANUARY_2026_MS
    days: Annotated[float, msgspec.Meta(gt=0.0, le=3_650.0)] = 14.0  # articles and events end at start + days
    gap: Share = 0.5  # 0: pages and searches use headline words; 1: none of the words of their topic's news
    noise_share: Share = 0.15
    noise: NoiseTexts = "listed"  # wide: thousands of texts, of other forms for held-out readers
    cold_share: Share = 0.1  # readers with 1-3 events
    duplicate_share: Share = 0.02  # delivered twice with the same id
    late_share: Share = 0.03  # delivered up to late_seconds after they happened
    late_seconds: Annotated[float, msgspec.Meta(ge=0.0)] = 3_600.0
    drift_per_week: Annotated[float, msgspec.Meta(ge=0.0, le=50.0)] = 0.3  # interests replaced, per interest and week
    slate_size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10  # articles in one impression

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.span_ms

    @property
    def span_ms(self) -> int:
        return int(self.days * DAY_MS)

    @property
    def expected_events(self) -> int:
        """Distinct events to be expected, duplicates not counted."""
        return round(self.readers * ((1 - self.cold_share) * self.events_per_reader + self.cold_share * 2))


def checked(settings: SimulationSettings) -> SimulationSettings:
    """`settings` with whole numbers as floats where floats belong, or UsageError naming the one out of its bounds."""
    try:
        return msgspec.convert(msgspec.to_builtins(settings), SimulationSettings)
    except msgspec.ValidationError as error:
        raise UsageError(f"simulation setting out of bounds: {error}") from error


def run_id(settings: SimulationSettings) -> str:
    """Short name of this very simulation: two of them never share an event id."""
    fields = msgspec.to_builtins(checked(settings))
    if fields["noise"] == "listed":
        del fields["noise"]  # it came later: simulations of before it keep their names, and so their bytes
    return hashlib.blake2b(msgspec.json.encode(fields), digest_size=4).hexdigest()
