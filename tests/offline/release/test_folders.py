from pathlib import Path

import pytest

from offline.release.folders import build_folder, link_files


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    build_folder(target, lambda folder: (folder / "a").touch())
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_new_build_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "model"
    build_folder(target, lambda folder: (folder / "a").touch())
    build_folder(target, lambda folder: (folder / "b").touch())
    assert [path.name for path in target.iterdir()] == ["b"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_build_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "model"
    build_folder(target, lambda folder: (folder / "a").touch())

    def half(folder: Path) -> None:
        (folder / "b").touch()
        raise error

    with pytest.raises(error):
        build_folder(target, half)
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_links_share_the_bytes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "weights").write_text("w")
    link_files(source, tmp_path / "target")
    assert (tmp_path / "target" / "sub" / "weights").samefile(source / "sub" / "weights")
