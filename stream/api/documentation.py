"""OpenAPI from the msgspec types, with examples: FastAPI knows the routes, msgspec knows the messages."""

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import FastAPI

from schemas.erasure import ErasureReceipt
from schemas.event import Event
from schemas.exposure import Outcome
from stream.api import messages

_TEMPLATE = "#/components/schemas/{name}"
_DOCUMENTED: tuple[type[msgspec.Struct], ...] = (
    messages.Problem,
    messages.EventAnswer,
    messages.OutcomeAnswer,
    messages.CandidateAnswer,
    messages.QueriesAnswer,
    messages.ProfileAnswer,
    messages.SearchRequest,
    messages.SearchAnswer,
    messages.ReadersAnswer,
    messages.HealthAnswer,
    messages.ReadinessAnswer,
    Event,
    Outcome,
    ErasureReceipt,
)
_NOW = 1_767_225_600_000

EXAMPLES: dict[type[msgspec.Struct], Any] = {
    Event: {
        "event_id": "7f9c2ba4-e88f-4270-9d1a-3f2b8f0c1a55",
        "user_id": "reader-42",
        "kind": "search",
        "text": "nearest charging station",
        "occurred_at": _NOW,
        "locale": "en",
    },
    messages.EventAnswer: {"accepted": 1, "rejected": 0, "unknown": 0, "results": [{"status": "accepted"}]},
    Outcome: {
        "outcome_id": "0198f2a4-9a51-7d3e-9a44-0d2f7b6c5e11",
        "request_id": "0198f2a4-3c1e-7cc0-b2f0-6f8a1c0d9e77",
        "user_id": "reader-42",
        "article_id": "a-1",
        "kind": "click",
        "occurred_at": _NOW,
    },
    messages.OutcomeAnswer: {"accepted": 1, "rejected": 0, "unknown": 0, "results": [{"status": "accepted"}]},
    messages.CandidateAnswer: {
        "user_id": "reader-42",
        "source": "student",
        "list_age_seconds": 12.5,
        "stale": False,
        "request_id": "0198f2a4-3c1e-7cc0-b2f0-6f8a1c0d9e77",
        "experiment": "path",
        "arm": "treatment",
        "candidates": [
            {
                "article_id": "a-1",
                "title": "Charging network doubles along motorways",
                "url": "https://news.example/a-1",
                "score": 0.0164,
                "similarity": 0.71,
                "query": "electric vehicle charging network",
                "source": "student",
                "published_at": _NOW,
            }
        ],
    },
    messages.SearchRequest: {"query": "charging network", "k": 5},
    messages.Problem: {"detail": "k is 500: 1 to 100 are allowed"},
}

_MEANINGS = {
    401: "The `x-api-key` header is missing or wrong.",
    403: "The key has not the scope of this route.",
    404: "Nothing is known of this reader, or this article is not stored; `detail` says which.",
    409: "The `request_id` was used for another reader; take a new one.",
    413: "The body is larger than 1 MiB.",
    422: "Something in the request is not as it must be; `detail` says what is allowed.",
    429: "Too many requests of this key or address; try again after `Retry-After` seconds.",
    503: "A part is away; try again after `Retry-After` seconds.",
    504: "No answer in time; try again after `Retry-After` seconds.",
}
_WITH_RETRY = (429, 503, 504)
_OF_EVERY_ROUTE = (429, 504)


def responses(answer: type[msgspec.Struct], *problems: int, partial: bool = False) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for a route that answers with `answer` or with one of these problems.

    `partial`: with 422 and 503 the answer itself may come, which tells the parts that went well.
    """
    problem = _content(messages.Problem)
    either = {"schema": {"anyOf": [reference(answer), reference(messages.Problem)]}}
    documented: dict[int | str, dict[str, Any]] = {
        200: {"description": "Done.", "content": {"application/json": _content(answer)}}
    }
    for status in (*problems, *((403,) if 401 in problems else ()), *_OF_EVERY_ROUTE):
        documented[status] = {
            "description": _MEANINGS[status],
            "content": {"application/json": either if partial and status in (422, 503) else problem},
        }
        if status in _WITH_RETRY:
            documented[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return documented


def body(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    """FastAPI's `openapi_extra` for a route that reads its JSON body itself."""
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def reference(message: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _TEMPLATE.format(name=message.__name__)}


def event_batch() -> dict[str, Any]:
    """The body of POST /v1/events. Events are checked one by one, so that a bad one gets a result of its own."""
    events = {"type": "array", "minItems": 1, "maxItems": messages.MAX_EVENTS, "items": reference(Event)}
    return {"type": "object", "required": ["events"], "properties": {"events": events}}


def outcome_batch() -> dict[str, Any]:
    """The body of POST /v1/outcomes."""
    outcomes = {"type": "array", "minItems": 1, "maxItems": messages.MAX_OUTCOMES, "items": reference(Outcome)}
    return {"type": "object", "required": ["outcomes"], "properties": {"outcomes": outcomes}}


def documented(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """`app.openapi` with the messages' schemas in it."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _, components = msgspec.json.schema_components(_DOCUMENTED, ref_template=_TEMPLATE)
            schema = plain()
            schema.setdefault("components", {}).setdefault("schemas", {}).update(components)
            app.openapi_schema = schema
        return app.openapi_schema

    return openapi


def _content(answer: type[msgspec.Struct]) -> dict[str, Any]:
    content = {"schema": reference(answer)}
    return {**content, "example": EXAMPLES[answer]} if answer in EXAMPLES else content
