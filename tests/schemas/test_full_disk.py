import errno
import os
from pathlib import Path

import pytest
import torch

from schemas.errors import FullDisk, KeenstreamError
from schemas.full_disk import full_disk_reason, full_disk_told


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "written by a library"), "No space left on device"),
        (OSError(errno.EDQUOT, ""), "Disk quota exceeded"),
        (RuntimeError("[Errno 28] No space left on device [while running 'Fold parts']"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "a write was cut short"),
        (OSError(errno.EACCES, "Permission denied"), None),
        (ValueError("28"), None),
    ],
)
def test_a_full_disk_is_known_by_its_number_or_its_words(error: Exception, reason: str | None) -> None:
    assert full_disk_reason(error) == reason


def test_the_sentence_names_the_place_and_what_comes_after() -> None:
    sentence = (
        r"the disk of runs/a is full \(No space left on device\): free some room and repeat the command, it resumes"
    )
    with pytest.raises(FullDisk, match=sentence), full_disk_told(Path("runs/a"), "it resumes"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [ZeroDivisionError("of another kind"), KeenstreamError("No space left on device")])
def test_what_is_something_else_or_told_already_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, full_disk_told(Path()):
        raise error
    assert raised.value is error


def test_what_torch_raises_for_want_of_room_is_known() -> None:
    """/dev/full takes no byte."""
    with pytest.raises(RuntimeError) as raised:
        torch.save({"moments": torch.zeros(1_000_000)}, "/dev/full")
    assert full_disk_reason(raised.value) == "a write was cut short"
