"""What is known of schema ids. Ids never change their meaning, so that an answer is kept for ever.

Asking goes on in a thread of its own: the caller waits a moment, is then told to come back (Unavailable), and finds the
answer on a later attempt. An event loop that decodes a batch is held up for a fraction of a second, once for each id.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Generic, TypeVar

from schemas.errors import InvalidRecord, KeenstreamError, Unavailable, UsageError
from schemas.registry import SchemaRegistry

LOOP_SECONDS = 0.2  # that an event loop may wait for an answer
AWAY_SECONDS = 1.0  # between two questions to a registry that is away
GONE_SECONDS = 30.0  # before a registry that did not know an id is asked again

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class _Asked(Generic[Answer]):
    def __init__(self) -> None:
        self.answer: Future[Answer] = Future()
        self.forget_at = float("inf")  # monotonic seconds; an answer is kept, a failure for a while


class Answers(Generic[Question, Answer]):
    """Each question is asked once. A failure is repeated for a while, so that a batch does not ask for each record."""

    def __init__(self, ask: Callable[[Question], Answer], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._asked: dict[Question, _Asked[Answer]] = {}
        self._lock = Lock()

    def get(self, question: Question, *, wait_seconds: float) -> Answer:
        """Raises Unavailable when there is no answer yet, and what `ask` raised when it failed just now.

        Only the one who asks waits; who comes while the question is open is told at once to come back.
        """
        asked, is_new = self._find(question)
        try:
            return asked.answer.result(timeout=wait_seconds if is_new else 0)
        except TimeoutError as error:
            raise Unavailable("the schema registry is being asked for a schema: try again") from error
        except KeenstreamError as failure:
            raise type(failure)(str(failure)) from failure  # one object raised many times would grow its traceback

    def _find(self, question: Question) -> tuple[_Asked[Answer], bool]:
        with self._lock:
            known = self._asked.get(question)
            if known is not None and self._clock() < known.forget_at:
                return known, False
            asked = self._asked[question] = _Asked()
        # a daemon: the end of a worker does not wait for a registry
        Thread(target=self._answer, args=(question, asked), name="schema registry", daemon=True).start()
        return asked, True

    def _answer(self, question: Question, asked: _Asked[Answer]) -> None:
        try:
            answer = self._ask(question)
        except Exception as error:  # whatever it is, the one who asked must hear of it
            asked.forget_at = self._clock() + (GONE_SECONDS if isinstance(error, InvalidRecord) else AWAY_SECONDS)
            asked.answer.set_exception(error)
        else:
            asked.answer.set_result(answer)


class SchemaIds:
    """Texts by id and ids by subject and text: pinned ones first, then the registry's.

    Both methods raise Unavailable when the registry is needed and does not answer (yet).
    """

    def __init__(
        self,
        registry: SchemaRegistry | None,
        *,
        pinned: Mapping[int, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._text_of = dict(pinned)
        self._id_of = {text: schema_id for schema_id, text in pinned.items()}
        self._texts = Answers(self._ask_text, clock=clock)
        self._ids = Answers(self._ask_id, clock=clock)

    def text(self, schema_id: int, *, wait_seconds: float = LOOP_SECONDS) -> str:
        """The writer schema of an id. Raises InvalidRecord for one that the registry does not know."""
        return self._text_of.get(schema_id) or self._texts.get(schema_id, wait_seconds=wait_seconds)

    def id_of(self, subject: str, text: str, *, wait_seconds: float = LOOP_SECONDS) -> int:
        """The id of one of our own schemas."""
        pinned = self._id_of.get(text)
        return pinned if pinned is not None else self._ids.get((subject, text), wait_seconds=wait_seconds)

    def _ask_text(self, schema_id: int) -> str:
        try:
            return self._reach().schema(schema_id)
        except UsageError as error:  # no fault of the record: it waits until the credentials are right
            raise Unavailable(str(error)) from error

    def _ask_id(self, question: tuple[str, str]) -> int:
        subject, text = question
        found = self._reach().find(subject, text)
        if found is None:
            raise UsageError(
                f"the newest schema of subject {subject} is not registered: run `keenstream schemas register` "
                "(part of a deployment), then go on"
            )
        return found

    def _reach(self) -> SchemaRegistry:
        if self._registry is None:
            raise Unavailable("a record needs the schema registry: set KEENSTREAM_REGISTRY_URL")
        return self._registry
