"""What the API takes and answers. msgspec encodes it; `stream/api/documentation.py` describes it in OpenAPI."""

from typing import Annotated, Literal

import msgspec

from schemas.candidates import Candidate, CandidateSource
from schemas.queries import Source

MAX_EVENTS = 1_000
MAX_OUTCOMES = 1_000
MAX_CANDIDATES = 100
MAX_SEARCH_CHARACTERS = 512
DEFAULT_CANDIDATES = 10
MAX_REQUEST_ID_CHARACTERS = 120  # with the place behind it, it is an identifier of the log

DeliveryStatus = Literal["accepted", "rejected", "unknown"]
EventStatus = DeliveryStatus | Literal["dropped"]


class Problem(msgspec.Struct, frozen=True):
    """Any error: what is wrong and what to do."""

    detail: str


class EventBatch(msgspec.Struct, frozen=True):
    """Each event is checked on its own, so one bad event does not keep the others out."""

    events: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]


class EventResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """`accepted`: the broker has it. `rejected`: mend it, see `reason`. `unknown`: send it again, that is harmless.

    `dropped`: the reader has not consented, so it was not stored anywhere; there is nothing to mend.
    """

    status: EventStatus
    reason: str = ""


class EventAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One result for each event, in order."""

    accepted: int
    rejected: int
    unknown: int
    results: list[EventResult]
    dropped: int = 0


class OutcomeBatch(msgspec.Struct, frozen=True):
    """Each outcome is checked on its own."""

    outcomes: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MAX_OUTCOMES)]


class OutcomeResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """As of an event. `warning` of an accepted one: something that may be wrong, such as an unknown request."""

    status: DeliveryStatus
    reason: str = ""
    warning: str = ""


class OutcomeAnswer(msgspec.Struct, frozen=True):
    """One result for each outcome, in order."""

    accepted: int
    rejected: int
    unknown: int
    results: list[OutcomeResult]


class CandidateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Articles for a reader, best first.

    `source` is what the list rests on: `student` (written queries, fused with the reader's own signals), `signals`
    (these alone) or `recent` (nothing known yet: the newest articles). `stale` is true when the vector store is away
    and an earlier answer stands in. `request_id` names this answer in the log, and in what is posted to /v1/outcomes;
    `experiment` and `arm` say which experiment, if any, has decided how it was made.
    """

    user_id: str
    source: CandidateSource
    list_age_seconds: float | None  # of the newest queries used; null when there are none
    stale: bool
    candidates: tuple[Candidate, ...]
    request_id: str = ""
    experiment: str = ""
    arm: str = ""


class QueryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One stored query."""

    query: str
    source: Source
    model: str
    model_version: str
    prompt_version: str
    profile_fingerprint: str
    generated_at: int  # UTC ms
    expires_at: int  # UTC ms


class QueriesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str
    queries: list[QueryAnswer]


class SignalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    event_id: str
    occurred_at: int  # UTC ms
    text: str
    url: str
    article_id: str
    locale: str


class ProfileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a reader: the latest signals of each kind, oldest first."""

    user_id: str
    fingerprint: str
    erased_before: int  # UTC ms: nothing at or before this time is kept
    page: list[SignalAnswer]
    search: list[SignalAnswer]
    click: list[SignalAnswer]


class SearchRequest(msgspec.Struct, frozen=True):
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SEARCH_CHARACTERS)]
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_CANDIDATES)] = DEFAULT_CANDIDATES


class FoundArticle(msgspec.Struct, frozen=True, kw_only=True):
    article_id: str
    title: str
    url: str
    similarity: float  # cosine
    published_at: int  # UTC ms


class SearchAnswer(msgspec.Struct, frozen=True):
    articles: list[FoundArticle]


class ReaderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A reader with the stored query that is nearest to the article."""

    user_id: str
    query: str
    source: Source
    similarity: float  # cosine
    list_age_seconds: float


class ReadersAnswer(msgspec.Struct, frozen=True, kw_only=True):
    article_id: str
    readers: list[ReaderAnswer]


class HealthAnswer(msgspec.Struct, frozen=True):
    status: Literal["ok"] = "ok"


class PartAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One part that the API leans on; `detail` says how to start it when it is down."""

    part: str
    up: bool
    needed_for: str
    detail: str = ""


class ReadinessAnswer(msgspec.Struct, frozen=True):
    """`degraded`: candidates and events work; free-text search does not, or exposures are being lost."""

    status: Literal["ready", "degraded", "not ready"]
    parts: list[PartAnswer]
