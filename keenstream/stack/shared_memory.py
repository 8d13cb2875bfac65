"""Regions of /dev/shm through which Triton talks to its models; they stay there when it is killed."""

import hashlib
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def shared_memory_prefix(folder: Path) -> str:
    """The same for every run of one folder, so that the next start finds what a kill left."""
    return f"keenstream_{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]}_"


def clean_shared_memory(folder: Path, shared_memory: Path = SHARED_MEMORY) -> int:
    """Remove regions that an unclean exit left; returns how many."""
    stale = list(shared_memory.glob(shared_memory_prefix(folder) + "*"))
    for region in stale:
        region.unlink(missing_ok=True)
    return len(stale)
