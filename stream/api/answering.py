"""A request for candidates from end to end: the arm, the look-up, the order, the answer, and the log of it."""

import uuid
from collections.abc import Callable, Collection, Sequence

import msgspec

from schemas.errors import Conflict
from schemas.experiment import Experiment, Treatment, treatment_of
from schemas.exploration import Placed, arrange
from schemas.exposure import Exposure
from stream import monitoring
from stream.api.exposures import ExposureLog
from stream.api.messages import CandidateAnswer
from stream.api.recommender import Lookup, Ranked, Recommender
from stream.api.request_memory import RequestMemory


class CandidateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`reader_signals`: how many are kept of the reader; None for a reader without a profile."""

    user_id: str
    k: int
    exclude: Collection[str]
    reader_signals: int | None
    request_id: str | None = None  # of the client, so that a repeated request is the same one


class Answering:
    """Answers requests by the running experiment and logs every place of every answer."""

    def __init__(
        self,
        recommender: Recommender,
        experiments: Sequence[Experiment],
        exposures: ExposureLog,
        requests: RequestMemory,
        clock_ms: Callable[[], int],
    ) -> None:
        self._recommender, self._experiments, self._clock_ms = recommender, experiments, clock_ms
        self._exposures, self._requests = exposures, requests

    async def answer(self, request: CandidateRequest) -> CandidateAnswer | None:
        """None for a reader of whom nothing is known.

        Raises RetryableError when nothing can be served, and Conflict for a request id of another reader.
        """
        if (repeated := self._repeated(request)) is not None:
            return repeated
        now_ms = self._clock_ms()
        treatment = treatment_of(request.user_id, self._experiments, now_ms)
        found = await self._recommender.look_up(
            request.user_id,
            k=request.k,
            exclude=request.exclude,
            now_ms=now_ms,
            known=request.reader_signals is not None,
            spare=treatment.given.exploration > 0,
        )
        if found is None:
            return None
        request_id = request.request_id or str(uuid.uuid4())
        ranking = found.answer(treatment.given.path)
        share = treatment.given.exploration
        placed = arrange(ranking.candidates, ranking.spare, share=share, request_id=request_id)
        answer = _answer(request.user_id, request_id, treatment, found, placed, now_ms)
        self._exposures.note(
            exposures_of(answer, treatment, found, placed, signals=request.reader_signals or 0, now_ms=now_ms)
        )
        self._requests.note(answer, repeatable=request.request_id is not None)
        monitoring.API_CANDIDATES.labels(answer.source, str(answer.stale).lower()).inc()
        return answer

    def forget(self, user_id: str) -> None:
        """The reader was erased."""
        self._recommender.forget(user_id)
        self._requests.forget(user_id)

    def _repeated(self, request: CandidateRequest) -> CandidateAnswer | None:
        if request.request_id is None:
            return None
        owner = self._requests.reader(request.request_id)
        if owner is not None and owner != request.user_id:
            raise Conflict("request_id was used for another reader: take a new one for each request")
        return self._requests.answer(request.request_id)


def _answer(
    user_id: str,
    request_id: str,
    treatment: Treatment,
    found: Lookup,
    placed: Sequence[Placed[Ranked]],
    now_ms: int,
) -> CandidateAnswer:
    ranking = found.answer(treatment.given.path)
    return CandidateAnswer(
        user_id=user_id,
        source=ranking.source,
        list_age_seconds=None if ranking.generated_at is None else max(0, now_ms - ranking.generated_at) / 1000,
        stale=found.stale,
        candidates=tuple(place.item.candidate for place in placed),
        request_id=request_id,
        experiment=treatment.experiment,
        arm=treatment.arm,
    )


def exposures_of(
    answer: CandidateAnswer,
    treatment: Treatment,
    found: Lookup,
    placed: Sequence[Placed[Ranked]],
    *,
    signals: int,
    now_ms: int,
) -> list[Exposure]:
    """One row for each place; for an empty answer one at place 0."""
    whole = Exposure(
        exposure_id=f"{answer.request_id}:0",
        request_id=answer.request_id,
        user_id=answer.user_id,
        experiment=treatment.experiment,
        arm=treatment.arm,
        phase=treatment.phase,
        triggered=found.triggered,
        position=0,
        propensity=1.0,
        source=answer.source,
        reader_signals=signals,
        exposed_at=now_ms,
    )
    rows = [_of_place(whole, position, place, now_ms) for position, place in enumerate(placed, start=1)]
    return rows or [whole]


def _of_place(whole: Exposure, position: int, placed: Placed[Ranked], now_ms: int) -> Exposure:
    candidate, origin = placed.item.candidate, placed.item.origin
    return Exposure(
        exposure_id=f"{whole.request_id}:{position}",
        request_id=whole.request_id,
        user_id=whole.user_id,
        experiment=whole.experiment,
        arm=whole.arm,
        phase=whole.phase,
        triggered=whole.triggered,
        position=position,
        article_id=candidate.article_id,
        propensity=placed.propensity,
        source=candidate.source,
        query_slot=origin.slot if origin else None,
        exclusive=placed.item.exclusive,
        list_age_ms=max(0, now_ms - origin.generated_at) if origin else None,
        model=origin.model if origin else "",
        model_version=origin.model_version if origin else "",
        prompt_version=origin.prompt_version if origin else "",
        reader_signals=whole.reader_signals,
        exposed_at=now_ms,
    )
