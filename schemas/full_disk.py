"""A disk without room, told in one sentence: libraries raise it in forms of their own, Beam as a text."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import FullDisk, KeenstreamError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: the limit of `ulimit -f`
_TEXTS: Final = tuple(os.strerror(code) for code in _FULL)
_TORN: Final = ("unexpected pos ", "iostream error")  # torch.save's own words, which name no reason


def full_disk_reason(error: BaseException) -> str | None:
    """The system's words for it; None when `error` is something else."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return os.strerror(error.errno)
    told = str(error)
    if isinstance(error, RuntimeError) and any(text in told for text in _TORN):
        return "a write was cut short"
    return next((text for text in _TEXTS if text in told), None)


@contextmanager
def full_disk_told(place: Path, afterwards: str = "") -> Iterator[None]:
    """FullDisk, which names `place`, instead of whatever the block raises for want of room."""
    try:
        yield
    except KeenstreamError:
        raise
    except Exception as error:
        if reason := full_disk_reason(error):
            raise FullDisk(full_disk_message(place, reason, afterwards)) from error
        raise


def full_disk_message(place: Path | str, reason: str, afterwards: str = "") -> str:
    """What to do; `afterwards` is what the repeated command does."""
    ending = f", {afterwards}" if afterwards else ""
    return f"the disk of {place} is full ({reason}): free some room and repeat the command{ending}"
