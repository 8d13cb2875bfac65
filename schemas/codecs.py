"""One codec for each topic, made once from the settings and passed in."""

from collections.abc import Mapping, Sequence
from logging import getLogger
from typing import Any

import msgspec

from schemas import codec
from schemas.article import Article
from schemas.codec import Codec
from schemas.config import Config, Registry
from schemas.contracts import CONTRACTS
from schemas.erasure import Erasure
from schemas.errors import Unavailable, UsageError
from schemas.event import Event
from schemas.exposure import Exposure, Outcome
from schemas.match import FreshMatch
from schemas.names import Topic
from schemas.queries import QueryList, QueryRequest

_log = getLogger(__name__)


class Codecs(msgspec.Struct, frozen=True, kw_only=True):
    """JSON unless made by `open_codecs`."""

    events: Codec[Event] = codec.EVENTS
    requests: Codec[QueryRequest] = codec.REQUESTS
    lists: Codec[QueryList] = codec.LISTS
    articles: Codec[Article] = codec.ARTICLES
    exposures: Codec[Exposure] = codec.EXPOSURES
    outcomes: Codec[Outcome] = codec.OUTCOMES
    matches: Codec[FreshMatch] = codec.MATCHES
    erasures: Codec[Erasure] = codec.ERASURES

    def of(self, topic: str) -> Codec[Any]:
        """The codec of a topic's values."""
        return self.by_topic()[topic]

    def by_topic(self) -> Mapping[str, Codec[Any]]:
        return {topic: getattr(self, name) for topic, name in _NAME_OF.items()}


_NAME_OF: dict[str, str] = {
    Topic.USER_EVENTS: "events",
    Topic.QUERY_REQUESTS: "requests",
    Topic.QUERY_LISTS: "lists",
    Topic.ARTICLES: "articles",
    Topic.EXPOSURES: "exposures",
    Topic.OUTCOMES: "outcomes",
    Topic.FRESH_MATCHES: "matches",
    Topic.ERASURES: "erasures",
}
JSON_CODECS = Codecs()


def open_codecs(config: Config, writes: Sequence[str] = ()) -> Codecs:
    """The codecs of a process; call it before the event loop starts, as it asks the registry and waits.

    `writes` names the topics that the process writes: their schemas must be registered. Raises UsageError when they are
    not, or the registry refuses the credentials. A registry that is away is no error: it is asked again when needed.
    """
    settings = config.registry
    if not settings.url and not settings.ids:
        if settings.format == "avro":
            raise UsageError("registry.format is avro: set KEENSTREAM_REGISTRY_URL, or write json")
        return JSON_CODECS
    codecs = _avro_codecs(settings)
    for topic in writes:
        _prepare(codecs.of(topic), topic, settings)
    return codecs


def pinned_ids(settings: Registry) -> dict[int, str]:
    """The published schemas that `registry.ids` knows the ids of, by id. Raises UsageError naming a wrong entry."""
    from schemas.avro.published import published

    known = {row.label: row.compact for contract in CONTRACTS for row in published(contract.name)}
    pinned: dict[int, str] = {}
    for entry in settings.ids:
        label, _, number = entry.partition("=")
        if label not in known or not number.isdecimal():
            raise UsageError(f"registry.ids: {entry} is not one of those that `keenstream schemas register` prints")
        pinned[int(number)] = known[label]
    return pinned


def _avro_codecs(settings: Registry) -> Codecs:
    from schemas.avro.codec import AvroCodec
    from schemas.avro.ids import SchemaIds
    from schemas.avro.published import published
    from schemas.registry import SchemaRegistry, subject_of

    registry = SchemaRegistry(settings) if settings.url else None
    ids = SchemaIds(registry, pinned=pinned_ids(settings))
    made = {
        _NAME_OF[contract.topic]: AvroCodec(
            contract.record,
            ids,
            subject=subject_of(contract, settings.subject_strategy),
            newest=published(contract.name)[-1],
            write_avro=settings.format == "avro",
        )
        for contract in CONTRACTS
    }
    return Codecs(**made)  # type: ignore[arg-type]


def _prepare(made: Codec[Any], topic: str, settings: Registry) -> None:
    from schemas.avro.codec import AvroCodec
    from schemas.registry import ATTEMPTS

    assert isinstance(made, AvroCodec)
    try:
        made.prepare(wait_seconds=(ATTEMPTS + 1) * settings.timeout_seconds)
    except Unavailable as error:
        _log.warning("%s: %s; records that need it will wait", topic, error)
