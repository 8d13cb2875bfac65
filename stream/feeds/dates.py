"""Dates as sources write them: ISO 8601, RFC 2822, seconds or milliseconds since 1970."""

from datetime import UTC, date, datetime, time
from email.utils import parsedate_to_datetime

from schemas.errors import InvalidRecord

EARLIEST_MS = 631_152_000_000  # 1990: an article "of 1970" has no date
AHEAD_MS = 86_400_000  # a clock or a time zone that is wrong by less than a day is believed
_SECONDS_BELOW, _MILLISECONDS_BELOW, _MICROSECONDS_BELOW = 10**11, 10**14, 10**17


def parse_date(value: object) -> int | None:
    """UTC ms; None when there is none. Without a zone it is UTC. Raises InvalidRecord for anything else."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        raise InvalidRecord(f"not a date: {value}")
    if isinstance(value, int | float):
        return _since_1970(value)
    if isinstance(value, date):
        return _milliseconds(value if isinstance(value, datetime) else datetime.combine(value, time.min))
    return _from_text(str(value).strip())


def plausible(published_ms: int | None, now_ms: int) -> bool:
    """Whether a news article can be of this date: since 1990, at most a day ahead of `now_ms`."""
    return published_ms is not None and EARLIEST_MS <= published_ms <= now_ms + AHEAD_MS


def _since_1970(number: float) -> int:
    if number != number or not 0 <= number < _MICROSECONDS_BELOW:
        raise InvalidRecord(f"not a date: {number}")
    if number < _SECONDS_BELOW:
        return int(number * 1000)
    return int(number) if number < _MILLISECONDS_BELOW else int(number / 1000)


def _from_text(text: str) -> int | None:
    if not text:
        return None
    if text.isascii() and text.replace(".", "", 1).isdigit() and len(text.partition(".")[0]) >= 9:
        return _since_1970(float(text))
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return _milliseconds(parse(text))
        except (ValueError, TypeError, OverflowError):
            continue
    raise InvalidRecord(f"not a date: {text[:40]}")


def _milliseconds(moment: datetime) -> int:
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return round(zoned.timestamp() * 1000)
    except (OverflowError, ValueError) as error:
        raise InvalidRecord(f"not a date: {moment}") from error
