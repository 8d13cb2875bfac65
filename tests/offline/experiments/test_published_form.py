"""The published form of report.json and offpolicy.json: real results keep to it, and it only ever grows."""

from pathlib import Path

import msgspec
import pytest

from offline.experiments.offpolicy_report import OffPolicyReport
from offline.experiments.report import REPORT_VERSION, Report
from tests.offline.experiments.published import as_written, faults
from tests.offline.experiments.test_page import ONE_BAD, whole

REPORT = "experiment-report.json"
FIELDS = Path(__file__).parent / "report_fields.txt"


@pytest.mark.parametrize(
    "report",
    [whole(), whole(ONE_BAD), whole(count=0), whole(count=60)],
    ids=["sound", "blocked", "empty", "few readers"],
)
def test_reports_keep_to_the_published_schema(report: Report) -> None:
    assert faults(REPORT, as_written(report)) == []


def test_the_schema_refuses_what_is_none() -> None:
    broken = as_written(whole())
    broken["comparisons"][0]["lift"] = "+9 %"
    del broken["verdicts"]["treatment"]["judgement"]
    assert len(faults(REPORT, broken)) == 2


def fields(record: type[msgspec.Struct]) -> set[str]:
    """Of every struct in it: Struct.field."""
    _, components = msgspec.json.schema_components([record])
    return {f"{name}.{field}" for name, struct in components.items() for field in struct.get("properties", {})}


def test_fields_are_only_ever_added_and_the_version_with_them() -> None:
    """A line is never taken out of the file; when lines are added, its first one becomes the next version."""
    version, *known = FIELDS.read_text(encoding="utf-8").split()
    assert fields(Report) | fields(OffPolicyReport) == set(known)
    assert version == REPORT_VERSION
