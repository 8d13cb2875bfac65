"""Requests without the signals that the trained cleaner calls noise.

An aid and never a condition: while the cleaner is away (or none is served) requests go on as the rules left them, after
one short deadline, and it is asked again after a pause. Each text is judged once for each version of the weights.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec

from schemas.clients.breaker import Breaker
from schemas.clients.models import Cleaner, Verdicts
from schemas.config import Interests
from schemas.errors import PermanentError, RetryableError
from schemas.noise import judged_texts, without_noise
from schemas.queries import QueryRequest
from stream import monitoring


class SignalCleaner:
    """Of one worker. `stage` names it in the metrics."""

    def __init__(self, settings: Interests, cleaner: Cleaner, breaker: Breaker, stage: str) -> None:
        self._latest, self._cleaner, self._breaker, self._stage = settings.cleaner_signals, cleaner, breaker, stage
        self._known = VerdictCache(settings.cleaner_cache_texts)

    async def clean(self, requests: Sequence[QueryRequest]) -> list[QueryRequest]:
        """The same requests, in order, each with what is to be read of its profile. Raises nothing of the cleaner's."""
        texts = {text for request in requests for text in judged_texts(request.profile, latest=self._latest)}
        noise = await self._noise_among(sorted(texts))
        return [msgspec.structs.replace(request, profile=without_noise(request.profile, noise)) for request in requests]

    async def _noise_among(self, texts: Sequence[str]) -> frozenset[str]:
        known = self._known.look_up(texts)
        monitoring.TEXTS_JUDGED.labels(self._stage, "known").inc(len(known))
        found = await self._judge([text for text in texts if text not in known])
        return frozenset(text for text, noise in {**known, **found}.items() if noise)

    async def _judge(self, texts: Sequence[str]) -> dict[str, bool]:
        """Verdicts of texts that are new here; none where the cleaner does not answer."""
        if not texts:
            return {}
        try:
            verdicts = await self._ask(texts)
        except (RetryableError, PermanentError):
            monitoring.CLEANER_FALLBACKS.labels(self._stage).inc()
            return {}
        found = dict(zip(texts, verdicts.noise, strict=True))
        self._known.note(found, verdicts.model_version)
        noise = sum(found.values())
        monitoring.TEXTS_JUDGED.labels(self._stage, "noise").inc(noise)
        monitoring.TEXTS_JUDGED.labels(self._stage, "kept").inc(len(found) - noise)
        return found

    async def _ask(self, texts: Sequence[str]) -> Verdicts:
        self._breaker.enter()
        try:
            verdicts = await self._cleaner.judge(texts)
        except (RetryableError, PermanentError):
            self._breaker.fail()
            raise
        except BaseException:
            self._breaker.abandon()
            raise
        self._breaker.succeed()
        return verdicts


class VerdictCache:
    """The verdicts of the texts that were asked for last, of one version of the weights. It holds no text: only a
    128-bit hash, since what it remembers may have been erased elsewhere."""

    def __init__(self, most: int) -> None:
        self._most, self._version = most, ""
        self._noise: OrderedDict[bytes, bool] = OrderedDict()

    def __len__(self) -> int:
        return len(self._noise)

    def look_up(self, texts: Sequence[str]) -> dict[str, bool]:
        """Of those that are known."""
        found = {}
        for text, key in ((text, _key(text)) for text in texts):
            if key in self._noise:
                self._noise.move_to_end(key)
                found[text] = self._noise[key]
        return found

    def note(self, noise: Mapping[str, bool], version: str) -> None:
        """Verdicts of another version than the last one forget all earlier ones."""
        if version != self._version:
            self._noise.clear()
            self._version = version
        self._noise.update((_key(text), verdict) for text, verdict in noise.items())
        while len(self._noise) > self._most:
            self._noise.popitem(last=False)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", errors="surrogatepass"), digest_size=16).digest()
