"""Where a job keeps what it needs while it runs."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def passing_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder (absolute) below `parent`, which is made; gone afterwards, also when the job was broken off.

    It is gone at once, by a rename: threads of a job that can't be stopped may still write, and fail.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent.absolute(), prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder.rename(f"{folder}-gone"), ignore_errors=True)
