import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from schemas.avro.generator import schema_text
from schemas.avro.history import history_faults, publish, write_published
from schemas.avro.published import Published, published, read_published
from schemas.contracts import CONTRACTS, Contract
from schemas.errors import KeenstreamError


class Note(msgspec.Struct):
    """A note."""

    text: str
    mood: Literal["good", "bad"] = "good"


def version(number: int, change: Callable[[Any], object] = lambda schema: None) -> Published:
    schema = json.loads(schema_text(Note))
    change(schema)
    return Published("Note", number, json.dumps(schema))


def without_mood(schema: Any) -> None:
    schema["fields"].pop()


def other_type(schema: Any) -> None:
    schema["fields"][0]["type"] = "long"


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda row: row.name)
def test_the_newest_published_schema_is_the_struct(contract: Contract) -> None:
    """When this fails a struct has changed: run `keenstream schemas publish` and commit what it writes."""
    assert history_faults(contract.record, published(contract.name)) == []


def test_a_new_optional_field_is_a_new_version() -> None:
    old = version(1, without_mood)
    assert history_faults(Note, [old]) == [
        "the struct is not version 1: run `keenstream schemas publish` and commit what it writes"
    ]
    made = publish(Note, [old], replace=False)
    assert made is not None and made.label == "Note/2"
    assert history_faults(Note, [old, made]) == []
    assert publish(Note, [old, made], replace=False) is None


def test_a_reworded_description_is_no_new_version() -> None:
    assert publish(Note, [version(1, lambda schema: schema.update(doc="Words."))], replace=False) is None


def test_what_old_readers_cannot_read_is_not_published() -> None:
    with pytest.raises(KeenstreamError, match=r"Note/2 cannot read Note/1: \$\.text"):
        publish(Note, [version(1, other_type)], replace=False)
    faults = history_faults(Note, [version(1, other_type), version(2)])
    assert {fault.partition(":")[0] for fault in faults} == {
        "Note/2 cannot read Note/1",
        "Note/1 cannot read Note/2",
    }


def test_what_was_never_released_may_be_replaced() -> None:
    made = publish(Note, [version(1, other_type)], replace=True)
    assert made is not None and made.label == "Note/1"


def test_versions_are_kept() -> None:
    assert any("a version is missing" in fault for fault in history_faults(Note, [version(1), version(3)]))
    assert history_faults(Note, []) == [
        "no schema has been published: run `keenstream schemas publish` and commit what it writes"
    ]


def test_files_are_read_as_they_were_written_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    rows = [version(number) for number in (1, 2, 10, 9)]
    for row in rows:
        write_published(tmp_path, row)
    assert [row.version for row in read_published(tmp_path, "Note")] == [1, 2, 9, 10]
    assert read_published(tmp_path, "Note")[0] == rows[0]
    assert read_published(tmp_path, "Other") == ()


def test_the_fingerprint_is_of_what_matters_to_a_reader() -> None:
    assert version(1).fingerprint == version(2, lambda schema: schema.update(doc="Words.")).fingerprint
    assert version(1).fingerprint != version(1, without_mood).fingerprint
