"""The one place where bytes from a topic become typed objects, and back.

`Codec` is the seam: JSON here, Avro in schemas/avro/codec.py; schemas/codecs.py chooses by the settings. The constants
below are for files, which are JSON Lines.
"""

from typing import Protocol, TypeVar

import msgspec

from schemas.advice import told
from schemas.article import Article
from schemas.erasure import Erasure
from schemas.errors import InvalidRecord
from schemas.event import Event
from schemas.exposure import Exposure, Outcome
from schemas.match import FreshMatch
from schemas.queries import QueryList, QueryRequest

Decoded = TypeVar("Decoded", bound=msgspec.Struct)
MAX_RECORD_BYTES = 262_144


def check_size(data: bytes) -> None:
    """Before anything is parsed."""
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidRecord(f"record of {len(data)} bytes (limit {MAX_RECORD_BYTES}): shorten its text")


class Codec(Protocol[Decoded]):
    """Bytes of one record type, both ways. `decode` raises InvalidRecord with a reason that holds no reader's text."""

    def decode(self, data: bytes | None) -> Decoded: ...

    def encode(self, record: Decoded) -> bytes: ...


class JsonCodec(Codec[Decoded]):
    """JSON by msgspec; fields with their default value are left out, unknown ones are ignored (forward compatible)."""

    def __init__(self, record_type: type[Decoded]) -> None:
        self._record_type = record_type
        self._decoder = msgspec.json.Decoder(record_type)
        self._encoder = msgspec.json.Encoder()

    def decode(self, data: bytes | None) -> Decoded:
        if not data:
            raise InvalidRecord("empty record: send one JSON object")
        check_size(data)
        if not data[0]:
            raise InvalidRecord("an Avro record, and no schema registry is set: set KEENSTREAM_REGISTRY_URL")
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise InvalidRecord(told(error, self._record_type)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRecord(f"not JSON ({error}): send one JSON object in UTF-8") from error

    def encode(self, record: Decoded) -> bytes:
        return self._encoder.encode(record)


EVENTS: Codec[Event] = JsonCodec(Event)
ARTICLES: Codec[Article] = JsonCodec(Article)
REQUESTS: Codec[QueryRequest] = JsonCodec(QueryRequest)
LISTS: Codec[QueryList] = JsonCodec(QueryList)
EXPOSURES: Codec[Exposure] = JsonCodec(Exposure)
OUTCOMES: Codec[Outcome] = JsonCodec(Outcome)
MATCHES: Codec[FreshMatch] = JsonCodec(FreshMatch)
ERASURES: Codec[Erasure] = JsonCodec(Erasure)
