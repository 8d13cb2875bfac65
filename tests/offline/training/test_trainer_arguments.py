import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
if sys.argv[1] == "kept":
    from offline.training.trainer_arguments import keep_freed_memory
    assert keep_freed_memory()
import torch
torch.set_num_threads(1)
def step():
    for _ in range(4):
        torch.ones(16 * 1024 * 1024)  # 64 MB, freed at once
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_kept_memory_is_not_mapped_anew() -> None:
    faults = {
        how: int(
            subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, check=True, text=True).stdout
        )
        for how in ("plain", "kept")
    }
    assert faults["plain"] > 8 * 4 * 64 / 2  # at least one for each two megabytes
    assert faults["kept"] < faults["plain"] / 10
