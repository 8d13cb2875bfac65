"""Is each part that the API leans on there? Asked by a real request, all at once, with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from schemas.clients.models import Embedder
from schemas.clients.vector_store import Store
from schemas.errors import KeenstreamError, Unavailable
from stream.api.messages import PartAnswer, ReadinessAnswer
from stream.api.views import ReaderViews

Check = Callable[[], Awaitable[object]]
DEADLINE_SECONDS = 3.0
_SEARCH = "POST /v1/search"
_LOG = "the log of exposures"
_SPARED = frozenset({_SEARCH, _LOG})  # all else works without them


class Part(msgspec.Struct, frozen=True):
    name: str
    needed_for: str
    check: Check


def parts_of(store: Store, embedder: Embedder, views: ReaderViews, check_kafka: Check, check_log: Check) -> list[Part]:
    async def check_views() -> None:
        if not views.ready:
            raise Unavailable("the profiles are still being read from Kafka: wait, see keenstream_api_view_lag")

    return [
        Part("kafka", "POST /v1/events and fresh profiles", check_kafka),
        Part("milvus", "candidates and search", store.check),
        Part("profiles", "seen articles, GET profile", check_views),
        Part("exposures", _LOG, check_log),
        Part("embedder", _SEARCH, lambda: embedder.embed(["ready"])),
    ]


async def readiness(parts: list[Part]) -> ReadinessAnswer:
    answers = list(await asyncio.gather(*map(_ask, parts)))
    down = {answer.needed_for for answer in answers if not answer.up}
    if not down:
        return ReadinessAnswer("ready", answers)
    return ReadinessAnswer("degraded" if down <= _SPARED else "not ready", answers)


async def _ask(part: Part) -> PartAnswer:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await part.check()
    except TimeoutError:
        detail = f"no answer in {DEADLINE_SECONDS:g} s: see `keenstream stack status`, start with `keenstream stack up`"
        return PartAnswer(part=part.name, up=False, needed_for=part.needed_for, detail=detail)
    except KeenstreamError as error:
        return PartAnswer(part=part.name, up=False, needed_for=part.needed_for, detail=str(error))
    return PartAnswer(part=part.name, up=True, needed_for=part.needed_for)
