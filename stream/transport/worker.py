"""Runs an app in the foreground until a signal or a crash.

Exit code 0 after SIGINT or SIGTERM (what is in hand is finished and committed), 1 after a crash, an agent's exception,
a recovery that does not end, or commits that stand still. A process manager starts the worker again.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import uvloop

from stream.transport.app import App
from stream.transport.watchdog import CommitWatch

LOOK_SECONDS = 0.5
_log = logging.getLogger(__name__)


class WorkerFailed(Exception):
    """The reason why the worker ends itself."""


def run_worker(app: App, *, beside: Callable[[], Coroutine[Any, Any, None]] | None = None) -> int:
    """Run until a signal (returns 0) or a failure (returns 1). `beside` runs in the same loop: a metrics server."""
    # also for the loop of the consumer's thread, which Faust makes itself
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        return asyncio.run(_serve(app, beside))
    finally:
        asyncio.set_event_loop_policy(None)


async def _serve(app: App, beside: Callable[[], Coroutine[Any, Any, None]] | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    app.in_worker = True
    tasks = [asyncio.ensure_future(_started(app)), asyncio.ensure_future(_watched(app))]
    if beside is not None:
        tasks.append(asyncio.ensure_future(beside()))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        failure = _failure(tasks)
        await _end(app, failure, tasks)
        return 0 if failure is None else 1
    finally:
        stopped.cancel()


async def _started(app: App) -> None:
    await app.start()
    await asyncio.Event().wait()


def _failure(tasks: list["asyncio.Task[None]"]) -> BaseException | None:
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            return error
    return None


async def _watched(app: App) -> None:
    """Raises when the app has crashed, does not recover, or does not commit."""
    settings, now = app.worker_settings, asyncio.get_running_loop().time
    watch: CommitWatch[Any] = CommitWatch(settings.stall_seconds)
    ready_at = now()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if app.crash_reason is not None or app._crashed.is_set():
            raise WorkerFailed("an agent or a part of the app crashed") from app.crash_reason
        if app.tables.actives_ready:
            ready_at = now()
            if stalled := watch.stalled(now(), app.consumer.progress()):
                raise WorkerFailed(f"no commit for {settings.stall_seconds:g} s while events wait: {sorted(stalled)}")
        elif now() - ready_at > settings.recovery_seconds:
            raise WorkerFailed(
                f"not ready {settings.recovery_seconds:g} s after the start or a rebalance: is the broker up, and does "
                "the changelog have cleanup.policy=compact?"
            )


async def _end(app: App, failure: BaseException | None, tasks: list["asyncio.Task[None]"]) -> None:
    if failure is not None:
        _log.critical("worker %s ends: %s", app.conf.id, failure, exc_info=failure)
        app._crash(
            failure
        )  # so that nobody waits for work that is stuck; what is acknowledged is committed all the same
    for task in tasks[1:]:
        task.cancel()
    try:
        async with asyncio.timeout(app.worker_settings.shutdown_seconds):
            await app.stop()
            tasks[0].cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError, Exception):
                    await task
    except TimeoutError:
        _log.critical("worker %s did not stop in time", app.conf.id)
        logging.shutdown()
        os._exit(1)  # a thread of the client still holds the process; nothing uncommitted is lost
