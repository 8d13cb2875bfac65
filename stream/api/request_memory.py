"""The requests that this process has answered lately: to answer a repeated one alike, and to know whose they were."""

from collections import OrderedDict

from stream.api.messages import CandidateAnswer

KNOWN_REQUESTS = 100_000  # about 20 MB of ids
KEPT_ANSWERS = 2_000  # only of requests that came with an id: others cannot be repeated


class RequestMemory:
    """Bounded; the oldest are forgotten first, and so is whoever is erased."""

    def __init__(self, known: int = KNOWN_REQUESTS, kept: int = KEPT_ANSWERS) -> None:
        self._known, self._kept = known, kept
        self._answers: OrderedDict[str, CandidateAnswer] = OrderedDict()
        self._readers: OrderedDict[str, str] = OrderedDict()  # user_id by request_id
        self._of_reader: dict[str, set[str]] = {}

    def note(self, answer: CandidateAnswer, *, repeatable: bool) -> None:
        self._readers[answer.request_id] = answer.user_id
        self._of_reader.setdefault(answer.user_id, set()).add(answer.request_id)
        if repeatable:
            self._answers[answer.request_id] = answer
        if len(self._readers) > self._known:
            self._drop(next(iter(self._readers)))
        if len(self._answers) > self._kept:
            self._answers.popitem(last=False)

    def answer(self, request_id: str) -> CandidateAnswer | None:
        return self._answers.get(request_id)

    def reader(self, request_id: str) -> str | None:
        """Whose request it was; None when this process does not know it."""
        return self._readers.get(request_id)

    def forget(self, user_id: str) -> None:
        for request_id in list(self._of_reader.get(user_id, ())):
            self._drop(request_id)

    def _drop(self, request_id: str) -> None:
        user_id = self._readers.pop(request_id)
        self._answers.pop(request_id, None)
        left = self._of_reader[user_id]
        left.discard(request_id)
        if not left:
            del self._of_reader[user_id]
