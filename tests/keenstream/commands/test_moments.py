import pytest

from keenstream.commands.moments import moment_ms, told
from schemas.errors import UsageError

NOW = 1_800_000_000_000
DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - 7_200_000),
        (" 90s ", NOW - 90_000),
        ("7d", NOW - 7 * DAY),
        ("999999d", 0),
        ("1970-01-02", DAY),
        ("1970-01-02T01:00", DAY + 3_600_000),
        ("1970-01-02T01:00:00.250Z", DAY + 3_600_250),
        ("1970-01-02T01:00+02:00", DAY - 3_600_000),
    ],
)
def test_the_forms_that_people_write(text: str, expected: int) -> None:
    assert moment_ms(text, option="--since", now_ms=NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2 hours", "-2h", "2026-13-01", "1e9h"])
def test_anything_else_names_the_option_and_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match=r"--since.*2h"):
        moment_ms(text, option="--since", now_ms=NOW)


def test_times_are_told_in_utc() -> None:
    assert told(DAY + 3_661_000) == "1970-01-02 01:01:01"
