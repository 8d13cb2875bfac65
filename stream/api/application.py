"""The HTTP API: events in, candidates out. Every part is passed in; `stream/api/server.py` runs it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException as StarletteHTTPException

from schemas.candidates import Hit
from schemas.clients.models import Embedder
from schemas.clients.vector_store import Store, UserQuery
from schemas.codecs import JSON_CODECS, Codecs
from schemas.config import Api, Config, Matches
from schemas.errors import InvalidRecord, KeenstreamError
from schemas.event import Event
from schemas.exposure import Outcome
from schemas.profile import Signal, UserProfile, fingerprint, seen_articles, signal_count
from stream.api import documentation
from stream.api.access import AccessScope, KeyRing, is_local, is_locked, needs
from stream.api.answering import Answering, CandidateRequest
from stream.api.documentation import EXAMPLES, body, documented, responses
from stream.api.erasure import Eraser, add_erasure
from stream.api.event_intake import EventIntake
from stream.api.exposures import ExposureLog
from stream.api.fresh import FreshParts, add_fresh
from stream.api.fresh_feed import FreshFeed
from stream.api.http import (
    Timer,
    answer,
    on_keenstream_error,
    on_problem,
    on_wrong_parameter,
    read_body,
)
from stream.api.limits import Deadline, Gate, Rates
from stream.api.messages import (
    DEFAULT_CANDIDATES,
    MAX_CANDIDATES,
    MAX_REQUEST_ID_CHARACTERS,
    CandidateAnswer,
    EventAnswer,
    FoundArticle,
    HealthAnswer,
    OutcomeAnswer,
    Problem,
    ProfileAnswer,
    QueriesAnswer,
    QueryAnswer,
    ReadinessAnswer,
    SearchAnswer,
    SearchRequest,
    SignalAnswer,
)
from stream.api.outcomes import OutcomeIntake
from stream.api.parameters import UserId
from stream.api.readiness import parts_of, readiness
from stream.api.recommender import Recommender
from stream.api.request_memory import RequestMemory
from stream.api.views import ReaderViews
from stream.erasure.service import EraseService
from stream.producer import Producer

MAX_EXCLUDED = 1_000
REQUEST_HEADER = "x-request-id"

Count = Annotated[int, Query(ge=1, le=MAX_CANDIDATES, description="How many articles.")]
# a URL cannot say null, so the document does not offer it
Excluded = Annotated[
    Annotated[list[str], Field(max_length=MAX_EXCLUDED)] | SkipJsonSchema[None],
    Query(description="Ids of articles to leave out; repeat it, or separate by commas."),
]

RequestId = Annotated[
    Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID_CHARACTERS, pattern=r"^[^\x00-\x1f\x7f]+$")]
    | SkipJsonSchema[None],
    Query(description="A new one for each answer that is shown; asked again with it, the same answer comes."),
]


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the API leans on."""

    store: Store
    views: ReaderViews
    recommender: Recommender
    answering: Answering
    exposures: ExposureLog
    requests: RequestMemory
    producer: Producer
    embedder: Embedder
    check_kafka: Callable[[], Awaitable[object]]
    clock_ms: Callable[[], int]
    codecs: Codecs = JSON_CODECS
    fresh: FreshFeed = msgspec.field(default_factory=lambda: FreshFeed(Matches()))
    eraser: Eraser | None = None  # None = over these parts


class Routers(msgspec.Struct, frozen=True, kw_only=True):
    """Where a route belongs by the scope of the key that it wants."""

    read: APIRouter
    write: APIRouter
    erase: APIRouter
    operations: APIRouter  # free where only this machine can ask, else as `read`


def create_api(config: Config, parts: Parts) -> FastAPI:
    app = FastAPI(
        title="keenstream",
        description="Candidates for a news recommender, found by the queries that stand for each reader.",
        version="1",
        exception_handlers={
            StarletteHTTPException: on_problem,
            RequestValidationError: on_wrong_parameter,
            KeenstreamError: on_keenstream_error,
        },
    )
    _add_limits(app, config.api)
    routers = _routers(config.api)
    _add_events(routers.write, config, parts)
    _add_outcomes(routers.write, config, parts)
    _add_candidates(routers.read, parts)
    _add_knowledge(routers.read, parts)
    _add_search(routers.read, parts)
    eraser = parts.eraser or EraseService(config, parts.store, parts.producer, parts.clock_ms, codecs=parts.codecs)
    add_erasure(routers.erase, eraser, request_seconds=config.api.request_seconds)
    add_fresh(routers.read, _fresh_parts(config, parts))
    _add_operations(routers.operations, parts)
    _add_health(app)
    for router in (routers.write, routers.read, routers.erase, routers.operations):
        app.include_router(router)
    app.openapi = documented(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _fresh_parts(config: Config, parts: Parts) -> FreshParts:
    return FreshParts(
        store=parts.store,
        views=parts.views,
        feed=parts.fresh,
        settings=config.matches,
        clock_ms=parts.clock_ms,
        codec=parts.codecs.matches,
    )


def _add_limits(app: FastAPI, settings: Api) -> None:
    """The last one added is the outermost."""
    keys = KeyRing(settings) if is_locked(settings) else None
    app.add_middleware(Gate, keys=keys, rates=Rates(settings.requests_per_second, settings.request_burst))
    app.add_middleware(Deadline, seconds=settings.request_seconds)
    app.add_middleware(Timer, log=settings.access_log)


def _routers(settings: Api) -> Routers:
    def router(scope: AccessScope) -> APIRouter:
        # without keys the documentation must not ask for one
        return APIRouter(dependencies=[needs(scope)] if is_locked(settings) else [])

    operations = APIRouter() if is_local(settings.host) else router("read")
    return Routers(read=router("read"), write=router("write"), erase=router("erase"), operations=operations)


def _add_events(router: APIRouter, config: Config, parts: Parts) -> None:
    skew_ms = int(config.profiles.future_skew_seconds * 1000)
    intake = EventIntake(parts.producer, parts.clock_ms, skew_ms=skew_ms, codec=parts.codecs.events)

    @router.post(
        "/v1/events",
        summary="Take what readers did",
        responses=responses(EventAnswer, 401, 413, 422, 503, partial=True),
        openapi_extra=body(documentation.event_batch(), {"events": [EXAMPLES[Event]]}),
    )
    async def post_events(request: Request) -> Response:
        """1 to 1000 events. The answer comes when the broker has them, with one result for each event, in order.

        Sending an event again is harmless: `event_id` names it. An event without consent is dropped here and stored
        nowhere. 422 when none of the events can be taken, 503 when the broker did not confirm all good ones; the
        results then say which to send again.
        """
        taken = await intake.take(await read_body(request))
        return answer(taken, 503 if taken.unknown else 200 if taken.accepted or taken.dropped else 422)


def _add_outcomes(router: APIRouter, config: Config, parts: Parts) -> None:
    skew_ms = int(config.profiles.future_skew_seconds * 1000)
    intake = OutcomeIntake(parts.producer, parts.requests, parts.clock_ms, skew_ms=skew_ms, codec=parts.codecs.outcomes)

    @router.post(
        "/v1/outcomes",
        summary="Take what readers did with answers",
        responses=responses(OutcomeAnswer, 401, 413, 422, 503, partial=True),
        openapi_extra=body(documentation.outcome_batch(), {"outcomes": [EXAMPLES[Outcome]]}),
    )
    async def post_outcomes(request: Request) -> Response:
        """1 to 1000 clicks, dwells and visits, for the analysis of experiments. One result for each, in order.

        They change no profile: what should teach the reader's profile goes to /v1/events too. Sending an outcome again
        is harmless: `outcome_id` names it. A request that this process does not know is a warning, as another process
        may have answered it. 422 when none can be taken, 503 when the broker did not confirm all good ones.
        """
        taken = await intake.take(await read_body(request))
        return answer(taken, 503 if taken.unknown else 200 if taken.accepted else 422)


def _add_candidates(router: APIRouter, parts: Parts) -> None:
    @router.get(
        "/v1/users/{user_id:id}/candidates",
        summary="Articles for a reader",
        responses=responses(CandidateAnswer, 401, 404, 409, 422, 503),
    )
    async def get_candidates(
        user_id: UserId, k: Count = DEFAULT_CANDIDATES, exclude: Excluded = None, request_id: RequestId = None
    ) -> Response:
        """The best articles for a reader by the stored queries; no model is asked.

        Articles that the reader has clicked are left out. A reader without queries gets the newest articles
        (`source`: `recent`). `score` compares articles of one answer only. Every place of the answer is logged as an
        exposure under its `request_id`, which is also in the header x-request-id; clicks on it go to /v1/outcomes.
        """
        profile = parts.views.profile(user_id)
        seen = _article_ids(exclude) | (seen_articles(profile) if profile else frozenset())
        signals = None if profile is None else signal_count(profile)
        found = await parts.answering.answer(
            CandidateRequest(user_id=user_id, k=k, exclude=seen, reader_signals=signals, request_id=request_id)
        )
        if found is None:
            return _unknown_reader(parts.views)
        response = answer(found)
        response.headers[REQUEST_HEADER] = quote(found.request_id)  # a header takes Latin-1 only
        return response


def _add_knowledge(router: APIRouter, parts: Parts) -> None:
    @router.get(
        "/v1/users/{user_id:id}/queries",
        summary="The queries that stand for a reader",
        responses=responses(QueriesAnswer, 401, 404, 422, 503),
    )
    async def get_queries(user_id: UserId) -> Response:
        """Each with its source: written by the student, or the reader's own signals. Empty until some are stored."""
        rows = await parts.recommender.queries(user_id, parts.clock_ms())
        if not rows and parts.views.profile(user_id) is None:
            return _unknown_reader(parts.views)
        return answer(QueriesAnswer(user_id=user_id, queries=[_query(row) for row in rows]))

    @router.get(
        "/v1/users/{user_id:id}/profile",
        summary="What is kept of a reader",
        responses=responses(ProfileAnswer, 401, 404, 422, 503),
    )
    async def get_profile(user_id: UserId) -> Response:
        """The latest signals of each kind, oldest first."""
        profile = parts.views.profile(user_id)
        return answer(_profile(profile)) if profile else _unknown_reader(parts.views)


def _add_search(router: APIRouter, parts: Parts) -> None:
    @router.post(
        "/v1/search",
        summary="Search the articles",
        responses=responses(SearchAnswer, 401, 413, 422, 503),
        openapi_extra=body(documentation.reference(SearchRequest), EXAMPLES[SearchRequest]),
    )
    async def post_search(request: Request) -> Response:
        """By free text. The only route that waits for a model, which turns the text into a vector."""
        wanted = decode_search(await read_body(request))
        vectors = await parts.embedder.embed([wanted.query])
        hits = await parts.recommender.nearest(vectors, k=wanted.k, now_ms=parts.clock_ms())
        return answer(SearchAnswer([_found(hit) for hit in hits]))


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz", summary="Is the process there", responses=responses(HealthAnswer))
    async def get_health() -> Response:
        return answer(HealthAnswer())


def _add_operations(router: APIRouter, parts: Parts) -> None:
    asked = parts_of(parts.store, parts.embedder, parts.views, parts.check_kafka, parts.exposures.check)

    @router.get("/readyz", summary="Are its parts there", responses=responses(ReadinessAnswer, 503, partial=True))
    async def get_readiness() -> Response:
        """Each part is asked by a real request. 503 when one is down that candidates or events need."""
        found = await readiness(asked)
        return answer(found, 503 if found.status == "not ready" else 200)

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def decode_search(data: bytes) -> SearchRequest:
    try:
        return _search_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRecord(f'{error}: send {{"query": "...", "k": 10}}') from error


_search_decoder = msgspec.json.Decoder(SearchRequest)


def _unknown_reader(views: ReaderViews) -> Response:
    if not views.ready:
        return answer(Problem("the profiles are still being read from Kafka after the start: try again soon"), 503)
    hint = "nothing is known of this reader: check the id, or send events to POST /v1/events and ask again in a second"
    return answer(Problem(hint), 404)


def _article_ids(exclude: Sequence[str] | None) -> frozenset[str]:
    """Entries as they are, and their parts: an id may hold a comma."""
    return frozenset(part for entry in exclude or () for part in (entry, *entry.split(",")))


def _query(row: UserQuery) -> QueryAnswer:
    return QueryAnswer(**{name: getattr(row, name) for name in QueryAnswer.__struct_fields__})


def _profile(profile: UserProfile) -> ProfileAnswer:
    return ProfileAnswer(
        user_id=profile.user_id,
        fingerprint=fingerprint(profile),
        erased_before=profile.erased_before,
        page=[_signal(signal) for signal in profile.page],
        search=[_signal(signal) for signal in profile.search],
        click=[_signal(signal) for signal in profile.click],
    )


def _signal(signal: Signal) -> SignalAnswer:
    return SignalAnswer(**{name: getattr(signal, name) for name in SignalAnswer.__struct_fields__})


def _found(hit: Hit) -> FoundArticle:
    return FoundArticle(**{name: getattr(hit, name) for name in FoundArticle.__struct_fields__})
