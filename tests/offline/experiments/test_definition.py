"""The analysis file: a sound one is read, and each mistake is named before the log is touched."""

from pathlib import Path

import pytest

from offline.experiments.definition import Count, read_analysis
from schemas.errors import UsageError

SOUND = """
control = "control"
window_days = 7.0

[experiment]
name = "path"
salt = "s1"
arms = [{ name = "control", path = false }, { name = "treatment" }]
phases = [{ starts_at = 2026-11-01T00:00:00Z, weights = { control = 0.5, treatment = 0.5 } }]

[[metrics]]
name = "ctr"
role = "primary"
numerator = { of = "click" }
denominator = { of = "impression" }

[[metrics]]
name = "active-days"
role = "guardrail"
margin = 0.02
numerator = { of = "visit", aggregate = "days" }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "analysis.toml"
    path.write_text(text)
    return path


def test_a_sound_file(tmp_path: Path) -> None:
    found = read_analysis(written(tmp_path, SOUND))
    assert found.arms == ("control", "treatment")
    assert found.metrics[0].numerator == Count(of="click")
    assert found.window_days == 7.0


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('control = "control"', 'control = "red"', "there is no arm red"),
        ('role = "primary"', 'role = "secondary"', "exactly one must have role = 'primary'"),
        ("margin = 0.02\n", "", "metric active-days: a guardrail needs a margin"),
        ('name = "active-days"', 'name = "ctr"', "two of them have the same name"),
        ('of = "click" }', 'of = "clicks" }', r"Invalid enum value 'clicks' - at `\$.metrics\[0\].numerator.of`"),
        ("window_days", "windowdays", r"unknown field `windowdays`; did you mean `window_days`\?"),
        (
            'of = "visit"',
            'of = "visit", after_days = 7.0',
            "nothing happens after 7 days in a window",
        ),
        ("treatment = 0.5", "treatment = 0.6", "the weights add up to 1.1"),
        ('of = "impression"', 'of = "impression", aggregate = "sum"', "impressions have no value to sum"),
        ("window_days", "list_age_hours = [6.0, 1.0]\nwindow_days", "list_age_hours must rise"),
        ("[[metrics]]", "[[metrics]", "is not TOML"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, before: str, after: str, reason: str) -> None:
    assert before in SOUND
    with pytest.raises(UsageError, match=reason):
        read_analysis(written(tmp_path, SOUND.replace(before, after, 1)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_analysis(tmp_path / "none.toml")
