"""Times as people write them on a command line: `2h` ago, a day, or an instant."""

import re
from datetime import UTC, datetime

from schemas.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
FORMS = "30m, 2h or 7d ago, 2026-11-24, or 2026-11-24T10:00 (UTC unless it says otherwise)"


def moment_ms(text: str, *, option: str, now_ms: int) -> int:
    """UTC ms of `text`; UsageError, naming the option, for anything that is no such time."""
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if ago:
        return max(0, now_ms - int(ago[1]) * _SECONDS[ago[2]] * 1000)
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(f"{option} {text}: write {FORMS}") from error
    known = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return max(0, round(known.timestamp() * 1000))


def told(at_ms: int) -> str:
    """`at_ms` for people, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
