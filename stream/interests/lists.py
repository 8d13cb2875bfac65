"""The student's query lists: clean ▸ render ▸ Triton `student` ▸ parse ▸ Triton `embedder` ▸ Milvus ▸ `query-lists`.

An unusable answer is asked for once more, sampled; after that the list says that the reader's own signals stand in.
"""

import zlib
from asyncio import sleep
from collections.abc import Callable, Sequence

import msgspec

from schemas.clients.breaker import GuardedStudent
from schemas.clients.models import Answer, Completion, Embedder
from schemas.clients.vector_store import STUDENT_SLOTS, UserQueryStore, student_write
from schemas.codecs import JSON_CODECS, Codecs
from schemas.config import Interests
from schemas.errors import KeenstreamError, Overloaded, RetryableError
from schemas.names import Model
from schemas.prompt import PromptVersion, known_prompt, render_prompt
from schemas.queries import QueryList, QueryRequest, parse_queries, signals_as_queries
from stream import monitoring
from stream.dead_letters import SourceRecord
from stream.interests.cleaning import SignalCleaner
from stream.interests.erasing import erase_readers
from stream.interests.requests import Answered, read_requests
from stream.interests.signals import embed_lists, logged, note_written
from stream.producer import Producer
from stream.refusals import process_apart

STAGE = "interests"


class Written(msgspec.Struct, frozen=True):
    """What the student wrote for one request; no queries = nothing usable."""

    queries: tuple[str, ...] = ()
    model_version: str = ""
    prompt_version: str = ""


class ListWriter:
    """Answers requests with the student's lists."""

    def __init__(
        self,
        settings: Interests,
        student: GuardedStudent,
        embedder: Embedder,
        store: UserQueryStore,
        producer: Producer,
        clock_ms: Callable[[], int],
        prompt_version: PromptVersion,
        codecs: Codecs = JSON_CODECS,
        cleaner: SignalCleaner | None = None,  # None: the rules alone clean
    ) -> None:
        self._settings = settings
        self._cleaner = cleaner
        self._student = student
        self._embedder = embedder
        self._store = store
        self._producer = producer
        self._clock_ms = clock_ms
        self._prompt_version = prompt_version
        self._codecs = codecs
        self._answered = Answered(STAGE)
        self._at_once = settings.batch_records  # fewer while the student is too busy for so many

    async def process(self, records: Sequence[SourceRecord]) -> None:
        """Write the list of each reader's newest request.

        Raises RetryableError when some could not be answered; what was answered is stored, so calling again with the
        same records asks only for the rest.
        """
        await process_apart(self._process, records, producer=self._producer, stage=STAGE, clock_ms=self._clock_ms)

    async def _process(self, records: Sequence[SourceRecord]) -> None:
        requests = read_requests(records, self._codecs.requests, stage=STAGE, now_ms=self._clock_ms())
        await self._producer.send(requests.letters)
        monitoring.DEAD_LETTERS.labels(STAGE).inc(len(requests.letters))
        self._answered.forget(requests.erased)
        await erase_readers(requests.erased, STUDENT_SLOTS, store=self._store, producer=self._producer, stage=STAGE)
        asked = self._answered.unanswered(requests.newest)
        asked = await self._cleaner.clean(asked) if self._cleaner else asked
        while asked:
            chunk, asked = asked[: self._at_once], asked[self._at_once :]
            await self._answer(chunk)

    async def _answer(self, requests: Sequence[QueryRequest]) -> None:
        answers = await self._write_all(requests)
        done = [
            (request, answer) for request, answer in zip(requests, answers, strict=True) if isinstance(answer, Written)
        ]
        await self._store_lists([self._list(request, answer) for request, answer in done])
        for request, _ in done:
            self._answered.note(request)
        self._at_once = self._next_size(len(requests), answers)
        for answer in answers:
            if isinstance(answer, KeenstreamError):
                raise answer

    def _next_size(self, asked: int, answers: Sequence[Written | KeenstreamError]) -> int:
        """Half as many after a deadline or a full queue, else one more (like TCP): work that a deadline cuts off goes
        on in Triton, so asking for as many again would be too late for ever where the model is too slow for them."""
        if any(isinstance(answer, Overloaded) for answer in answers):
            return max(1, asked // 2)
        return min(self._settings.batch_records, self._at_once + 1)

    async def _write_all(self, requests: Sequence[QueryRequest]) -> list[Written | KeenstreamError]:
        """One answer for each request; the unusable ones are asked for once more, sampled."""
        answers = await self._ask(requests, sampled=False)
        again = [at for at, answer in enumerate(answers) if isinstance(answer, Written) and not answer.queries]
        if again:
            monitoring.LISTS_UNUSABLE.labels("greedy").inc(len(again))
            second = await self._ask([requests[at] for at in again], sampled=True)
            monitoring.LISTS_UNUSABLE.labels("sampled").inc(sum(answer == Written() for answer in second))
            for at, answer in zip(again, second, strict=True):
                answers[at] = answer
        return answers

    async def _ask(self, requests: Sequence[QueryRequest], *, sampled: bool) -> list[Written | KeenstreamError]:
        if not requests:
            return []
        await self._rest()
        prompts = [render_prompt(request.profile, self._prompt_version) for request in requests]
        # a seed from the content: asked again, the same reader gets the same list
        seed = zlib.crc32("".join(request.profile_fingerprint for request in requests).encode()) | 1
        answers = await self._student.write(prompts, seed=seed if sampled else 0)
        if served := self._other_prompt(answers):
            self._prompt_version = served
            return await self._ask(requests, sampled=sampled)
        return [self._written(answer) for answer in answers]

    def _other_prompt(self, answers: Sequence[Answer]) -> PromptVersion | None:
        """The rendering that the weights were made for, where a promoted model reads another than was sent."""
        told = {answer.prompt_version for answer in answers if isinstance(answer, Completion)}
        others = told - {self._prompt_version}
        return known_prompt(others.pop()) if others else None

    async def _rest(self) -> None:
        """While the breaker is open nothing is asked, and so nothing more is consumed."""
        while wait_seconds := self._student.breaker.wait_seconds():
            monitoring.BREAKER_OPEN.labels(Model.STUDENT).set(1)
            await sleep(wait_seconds)
        monitoring.BREAKER_OPEN.labels(Model.STUDENT).set(0)

    def _written(self, answer: Answer) -> Written | KeenstreamError:
        if isinstance(answer, RetryableError):
            return answer
        if not isinstance(answer, Completion):
            return Written()  # the model cannot take this prompt: the signals stand in
        text = answer.texts[0] if answer.texts else ""
        queries = parse_queries(text, limit=self._settings.max_queries)
        return Written(queries, answer.model_version, answer.prompt_version)

    def _list(self, request: QueryRequest, answer: Written) -> QueryList:
        signals = signals_as_queries(request.profile, limit=self._settings.signal_queries)
        now_ms = self._clock_ms()
        return QueryList(
            user_id=request.user_id,
            queries=answer.queries or signals[: self._settings.max_queries],
            signals=signals,
            source="student" if answer.queries else "signals",
            profile_fingerprint=request.profile_fingerprint,
            model=Model.STUDENT if answer.queries else "",
            model_version=answer.model_version,
            prompt_version=answer.prompt_version,
            generated_at=now_ms,
            expires_at=now_ms + int(self._settings.list_ttl_seconds * 1000),
            accepted_at=request.accepted_at,
        )

    async def _store_lists(self, lists: Sequence[QueryList]) -> None:
        if not lists:
            return
        vectors = await embed_lists(self._embedder, [row.queries for row in lists])
        await self._store.write_user_queries(
            [student_write(row, found) for row, found in zip(lists, vectors, strict=True)]
        )
        await self._producer.send([logged(row, self._codecs.lists) for row in lists])
        note_written(STAGE, lists, self._clock_ms())
