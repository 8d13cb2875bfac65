"""The row of the profile table: the profile, and beside it when its list was last asked for.

They are two things in one row because they must change together, and apart because the profile is the same online and
offline, byte for byte, while refreshing is a matter of this stream alone.
"""

import msgspec

from schemas.profile import UserProfile


class RefreshState(msgspec.Struct, frozen=True, array_like=True):
    """What speaks for a new list. Times are UTC ms; 0 = never."""

    requested_at: int = 0
    waiting_weight: float = 0.0  # of the signals that are new since the last request
    waiting_since: int = 0
    accepted_at: int = 0  # broker's time of the newest of them


class ProfileRecord(msgspec.Struct, frozen=True, array_like=True):
    """One row of the profile table."""

    profile: UserProfile
    refresh: RefreshState = RefreshState()


def encode_record(record: ProfileRecord) -> bytes:
    return _encoder.encode(record)


def decode_record(data: bytes) -> ProfileRecord:
    return _decoder.decode(data)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ProfileRecord)
