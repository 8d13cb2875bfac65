"""Folders of running jobs, gone with them."""

from pathlib import Path

import pytest

from offline.passing_folder import passing_folder


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_it_goes_with_the_job(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), passing_folder(tmp_path / "out", "_scratch-") as folder:
        (folder / "part").write_bytes(b"1")
        assert folder.name.startswith("_scratch-")
        raise error
    assert list((tmp_path / "out").iterdir()) == []


def test_two_jobs_have_their_own(tmp_path: Path) -> None:
    with passing_folder(tmp_path, "x") as one, passing_folder(tmp_path, "x") as other:
        assert one != other


def test_what_writes_on_fails_and_leaves_nothing(tmp_path: Path) -> None:
    with passing_folder(tmp_path, "x") as folder:
        open_file = (folder / "part").open("wb")
    with open_file, pytest.raises(FileNotFoundError):
        open_file.write(b"1")
        (folder / "other").write_bytes(b"2")
    assert list(tmp_path.iterdir()) == []
