"""Avro and JSON on one topic: read by the first byte, written as the settings say."""

from typing import TypeVar

import msgspec

from schemas.avro.ids import LOOP_SECONDS, SchemaIds
from schemas.avro.published import Published
from schemas.avro.wire import HEADER_BYTES, RecordReader, RecordWriter, header, schema_id_of
from schemas.codec import Codec, JsonCodec, check_size
from schemas.errors import InvalidRecord, Unavailable, UsageError

Decoded = TypeVar("Decoded", bound=msgspec.Struct)


class AvroCodec(Codec[Decoded]):
    """Reads both formats; writes Avro by the newest published schema when `write_avro`, else JSON.

    Besides InvalidRecord, both methods raise Unavailable while an id must be asked for: the same record will do later.
    """

    def __init__(
        self, record: type[Decoded], ids: SchemaIds, *, subject: str, newest: Published, write_avro: bool
    ) -> None:
        self._record, self._ids, self._subject, self._newest = record, ids, subject, newest
        self._write_avro = write_avro
        self._json = JsonCodec(record)
        self._writer = RecordWriter(newest.text, record)
        self._header = b""
        self._readers: dict[bytes, RecordReader[Decoded]] = {}  # by the first 5 bytes

    def decode(self, data: bytes | None) -> Decoded:
        if not data or data[0]:
            return self._json.decode(data)
        check_size(data)
        reader = self._readers.get(data[:HEADER_BYTES]) or self._open_reader(data)
        try:
            return reader.read(data)
        except InvalidRecord as error:
            raise type(error)(f"{error} (schema {schema_id_of(data)})") from error

    def encode(self, record: Decoded) -> bytes:
        if not self._write_avro:
            return self._json.encode(record)
        return self._writer.write(self._header or self._find_header(LOOP_SECONDS), record)

    def prepare(self, *, wait_seconds: float) -> None:
        """Ask for the id of our own schema. Raises UsageError when nobody has registered it, or Unavailable."""
        if self._write_avro and not self._header:
            self._header = header(self._ids.id_of(self._subject, self._newest.compact, wait_seconds=wait_seconds))

    def _find_header(self, wait_seconds: float) -> bytes:
        try:
            self.prepare(wait_seconds=wait_seconds)
        except UsageError as error:  # no fault of the record, and the worker need not end for it
            raise Unavailable(str(error)) from error
        return self._header

    def _open_reader(self, data: bytes) -> RecordReader[Decoded]:
        schema_id = schema_id_of(data)
        text = self._ids.text(schema_id)
        try:
            reader = RecordReader(text, self._record)
        except InvalidRecord as error:
            raise InvalidRecord(f"{error} (schema {schema_id})") from error
        self._readers[data[:HEADER_BYTES]] = reader
        return reader
