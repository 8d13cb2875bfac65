"""Which record stands on which topic: the list behind codecs, schema subjects and the generated documents."""

import msgspec

from schemas.article import Article
from schemas.erasure import Erasure
from schemas.event import Event
from schemas.exposure import Exposure, Outcome
from schemas.match import FreshMatch
from schemas.names import Topic
from schemas.queries import QueryList, QueryRequest


class Contract(msgspec.Struct, frozen=True):
    """One topic with its record type. `key` is the field whose value is the record's key."""

    topic: str
    record: type[msgspec.Struct]
    key: str = "user_id"

    @property
    def name(self) -> str:
        return self.record.__name__


CONTRACTS: tuple[Contract, ...] = (
    Contract(Topic.USER_EVENTS, Event),
    Contract(Topic.QUERY_REQUESTS, QueryRequest),
    Contract(Topic.QUERY_LISTS, QueryList),
    Contract(Topic.ARTICLES, Article, key="article_id"),
    Contract(Topic.EXPOSURES, Exposure),
    Contract(Topic.OUTCOMES, Outcome),
    Contract(Topic.FRESH_MATCHES, FreshMatch),
    Contract(Topic.ERASURES, Erasure),
)


def contract_of(topic: str) -> Contract:
    return next(contract for contract in CONTRACTS if contract.topic == topic)
