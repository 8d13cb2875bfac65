"""Back-off for batches: a part that is away pauses consumption and loses nothing."""

from collections.abc import Awaitable, Callable
from logging import getLogger

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from schemas.errors import RetryableError
from stream import monitoring

AWAY_SECONDS = 3_600.0  # Triton or Milvus may be away so long before a batch that stands still ends the worker
_log = getLogger(__name__)


async def until_done(attempt: Callable[[], Awaitable[None]], *, stage: str, max_wait_seconds: float = 10.0) -> None:
    """Call `attempt` until it raises no RetryableError, with jittered exponential back-off.

    `attempt` must be repeatable. Other errors leave at once: they are bugs, and the worker must end without
    acknowledging its input.
    """
    with monitoring.BATCH_SECONDS.labels(stage).time():
        async for state in AsyncRetrying(
            retry=retry_if_exception_type(RetryableError),
            wait=wait_random_exponential(multiplier=0.2, max=max_wait_seconds),
            before_sleep=lambda call: _note(call, stage),
        ):
            with state:
                await attempt()


def _note(call: RetryCallState, stage: str) -> None:
    monitoring.RETRIES.labels(stage).inc()
    error = call.outcome.exception() if call.outcome else None
    if call.attempt_number in (1, 5) or call.attempt_number % 25 == 0:
        _log.warning("%s: attempt %d failed and will be repeated: %s", stage, call.attempt_number, error)
