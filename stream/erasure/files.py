"""The archive's part of an erasure, and of the search for what is left."""

import time
from collections.abc import Callable
from pathlib import Path

from schemas.erasure import StoreReceipt
from stream.clock import now_ms


def erase_files(
    folder: Path, user_id: str, erased_before: int, on_file: Callable[[str], None] = lambda path: None
) -> StoreReceipt:
    """Rewrite the files that hold rows of the reader; `on_file` hears of each. Call it once the wish is stored."""
    if not folder.exists():
        return StoreReceipt(store="archive", state="absent", unit="rows")
    from stream.archive.erasing import erase_from_archive

    started = time.monotonic()
    files = erase_from_archive(folder, user_id, erased_before, lambda file: on_file(file.path))
    rows = sum(file.rows for file in files)
    return StoreReceipt(
        store="archive",
        state="clean",
        unit="rows",
        found=rows,
        removed=rows,
        at=now_ms(),
        seconds=round(time.monotonic() - started, 3),
        files=tuple(file.path for file in files),
        detail="" if files else "no file held rows any more; the archive worker removes them as well",
    )
