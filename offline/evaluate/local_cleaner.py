"""The served cleaner's weights in this process, for jobs without a Triton: the same graph, tokenizer and threshold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from offline.release.manifest import read_manifest
from offline.release.served_code import ServedCleaner
from schemas.clients.models import Verdicts
from schemas.clients.triton import JUDGED_CHARACTERS, NOISE_FROM
from schemas.errors import UsageError

BATCH_TEXTS: Final = 128


class LocalCleaner:
    """A `Cleaner` (schemas/clients/models.py) from the folder that `make setup` builds."""

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise UsageError(f"{folder} holds no cleaner: run `make setup`, or leave the cleaner out")
        self._version = f"{manifest.name}-{manifest.version}"
        self._cleaner = ServedCleaner(folder)

    async def judge(self, texts: Sequence[str]) -> Verdicts:
        noise: list[bool] = []
        for start in range(0, len(texts), BATCH_TEXTS):
            part = [text[:JUDGED_CHARACTERS] for text in texts[start : start + BATCH_TEXTS]]
            noise += [bool(share >= NOISE_FROM) for share in self._cleaner.judge(part)]
        return Verdicts(noise=tuple(noise), model_version=self._version)

    async def close(self) -> None: ...
