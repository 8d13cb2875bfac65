"""What an erasure does to a reader's row, and the tombstone that carries it on to requests, lists and queries.

The row stays, without signals: `erased_before` keeps late events of before the erasure out. The order in which events
and erasures are read does not matter, because the profile is a merge. The tombstone is sent each time, also when
nothing changes: it is repeatable, and heals what an earlier one could not.
"""

from schemas.erasure import Erasure
from schemas.errors import InvalidRecord
from schemas.names import Header, Topic
from schemas.profile import UserProfile, erase_before
from stream.producer import Outgoing
from stream.profiles.record import ProfileRecord, RefreshState

MAX_AHEAD_MS = 86_400_000  # clocks differ; an erasure of years ahead would close a reader's profile for years


def check_erasure(erasure: Erasure, key: bytes | None, *, now_ms: int) -> Erasure:
    """`erasure`, unless its key is another reader's or it reaches into the future: then InvalidRecord."""
    if key != erasure.user_id.encode():
        raise InvalidRecord("the record's key is not its user_id: set the key, so that it meets the reader's events")
    if erasure.erased_before - now_ms > MAX_AHEAD_MS:
        raise InvalidRecord("erased_before is more than a day in the future: send UTC milliseconds")
    return erasure


def erase_record(record: ProfileRecord, erasure: Erasure) -> ProfileRecord:
    """`record` without what the erasure covers; what is left of it is asked for anew, so nothing waits."""
    return ProfileRecord(erase_before(record.profile, erasure.erased_before), RefreshState())


def tombstone(profile: UserProfile, signals_found: int) -> Outgoing:
    """On query-requests: what was asked for this reader before is void."""
    headers = (
        (Header.ERASED_BEFORE, str(profile.erased_before).encode()),
        (Header.SIGNALS_FOUND, str(signals_found).encode()),
    )
    return Outgoing(Topic.QUERY_REQUESTS, profile.user_id.encode(), None, headers)
