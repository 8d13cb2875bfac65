"""A folder appears whole or not at all, so that a Ctrl-C in the middle of a build leaves nothing half done."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def build_folder(target: Path, fill: Callable[[Path], None], *, scratch_in: Path | None = None) -> None:
    """Fill a temporary folder, by default beside `target`, and put it in its place; what was there before goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch_in or target.parent, prefix=f".{target.name}-") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        fill(new)
        if target.exists():
            target.rename(old)
        new.rename(target)


def link_files(source: Path, target: Path) -> None:
    """The same files under `target`: hard links where the file system can, copies elsewhere."""
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.hardlink_to(path)
        except OSError:
            shutil.copy2(path, copy)
