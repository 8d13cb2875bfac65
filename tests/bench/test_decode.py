import subprocess
import sys

import msgspec
import pytest

from bench.decode import avro_codecs, measure
from schemas.codec import JsonCodec
from schemas.codecs import Codecs
from schemas.errors import KeenstreamError
from schemas.event import Event
from tests.integration.histories import history


class Lossy(JsonCodec[Event]):
    def encode(self, record: Event) -> bytes:
        return super().encode(msgspec.structs.replace(record, url=None))


def test_help_shows_an_example() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.decode", "--help"], capture_output=True, text=True, check=True)
    assert "keenstream bench decode" in done.stdout


def test_both_formats_are_measured_on_the_same_events() -> None:
    report = measure(history(2_000, 50, seed=1), avro_codecs(), rounds=2)
    assert (report.events, report.rounds) == (2_200, 2)
    assert 0 < report.readers <= 50
    assert report.avro.bytes_per_event < report.json.bytes_per_event
    assert min(report.json.fold_per_second, report.avro.fold_per_second, report.fold_cost, report.decode_cost) > 0


def test_formats_that_lead_to_different_profiles_are_no_result() -> None:
    with pytest.raises(KeenstreamError, match="different profiles"):
        measure(history(100, 5, seed=1), Codecs(events=Lossy(Event)), rounds=1)
