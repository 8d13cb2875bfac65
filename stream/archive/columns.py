"""Records of one topic as Arrow columns: decoded by the topic's codec, without a dictionary per row."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from schemas.archive import ARCHIVED, ARRIVED, OFFSET, PARTITION, archive_schema
from schemas.codec import Codec
from schemas.errors import InvalidRecord, WithoutConsent
from schemas.event import Event
from schemas.names import Header
from stream.dead_letters import SourceRecord, dead_letter, refuses_consent
from stream.producer import Outgoing

STAGE = "archive"
_NO_COLUMN = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError)


class TopicRecord(SourceRecord, Protocol):
    """A record as kafka-python gives it."""

    @property
    def timestamp(self) -> int: ...


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Records that are counted in their range and are in no file."""

    tombstones: int = 0
    undecodable: int = 0  # each is a dead letter
    without_consent: int = 0
    replayed: int = 0  # from the archive: it has them
    erased: int = 0

    def __add__(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__struct_fields__)


NOTHING = LeftOut()


class Refused(msgspec.Struct, frozen=True):
    """A record that no row can be made of, and what an erasure must know of it."""

    letter: Outgoing
    key: bytes | None
    arrived_ms: int


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What became of some consecutive records of a partition."""

    rows: pa.Table
    left_out: LeftOut = NOTHING
    refused: tuple[Refused, ...] = ()


class _Replayed(Exception):
    """The archive has this record already."""


class _NoConsent(Exception):
    """Not to be stored."""


class Columns:
    """Builds the columns of one topic."""

    def __init__(self, topic: str, codec: Codec[Any]) -> None:
        archived = ARCHIVED[topic]
        self._schema = archive_schema(topic)
        self._decode = codec.decode
        self._check: Callable[[TopicRecord, Any], None] = _check_event if archived.record_type is Event else _accept
        self._fields = [attrgetter(name) for name in archived.record_type.__struct_fields__]
        # the broker's columns are last in the schema, in this order
        self._origin = [attrgetter({PARTITION: "partition", OFFSET: "offset", ARRIVED: "timestamp"}[name])
                        for name in self._schema.names[len(self._fields) :]]  # fmt: skip

    def build(self, records: Sequence[TopicRecord], now_ms: int) -> Chunk:
        """`records` in their order, without those that `LeftOut` counts."""
        kept: list[TopicRecord] = []
        rows: list[Any] = []
        refused: list[Refused] = []
        tombstones = without_consent = replayed = 0
        for record in records:
            if record.value is None:
                tombstones += 1
                continue
            try:
                row = self._decode(record.value)
                self._check(record, row)
            except InvalidRecord as error:
                if isinstance(error, WithoutConsent) or refuses_consent(record.value):
                    without_consent += 1
                else:
                    refused.append(_refused(record, str(error), now_ms))
            except _NoConsent:
                without_consent += 1
            except _Replayed:
                replayed += 1
            else:
                kept.append(record)
                rows.append(row)
        table = self._table(kept, rows, refused, now_ms)
        left_out = LeftOut(
            tombstones=tombstones, undecodable=len(refused), without_consent=without_consent, replayed=replayed
        )
        return Chunk(rows=table, left_out=left_out, refused=tuple(refused))

    def _table(self, kept: list[TopicRecord], rows: list[Any], refused: list[Refused], now_ms: int) -> pa.Table:
        """The columns; a record whose values have no place in them (a number beyond 64 bits) is a dead letter."""
        try:
            values = [list(map(field, rows)) for field in self._fields]
            values += [list(map(field, kept)) for field in self._origin]
            return pa.table([pa.array(v, f.type) for v, f in zip(values, self._schema, strict=True)], self._schema)
        except _NO_COLUMN as error:
            if len(kept) == 1:
                refused.append(_refused(kept[0], f"a value has no place in a column: {type(error).__name__}", now_ms))
                return self._schema.empty_table()
        middle = len(kept) // 2
        halves = (slice(None, middle), slice(middle, None))
        return pa.concat_tables([self._table(kept[half], rows[half], refused, now_ms) for half in halves])


def _check_event(record: TopicRecord, event: Event) -> None:
    if not event.consent:
        raise _NoConsent
    if record.key != event.user_id.encode():
        raise InvalidRecord("the record's key is not its user_id: set the key, so that a reader stays in one partition")
    _accept(record, event)


def _accept(record: TopicRecord, _row: object) -> None:
    if record.headers and any(name == Header.REPLAYED_FROM for name, _ in record.headers):
        raise _Replayed


def _refused(record: TopicRecord, reason: str, now_ms: int) -> Refused:
    letter = dead_letter(record, stage=STAGE, reason=reason, failed_at_ms=now_ms)
    return Refused(letter, record.key, record.timestamp)
