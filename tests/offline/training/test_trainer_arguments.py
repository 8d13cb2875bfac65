import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from offline.training.bases import load_base
from offline.training.sizes import LAPTOP
from offline.training.trainer_arguments import cast_once, plain_attention, shared_arguments

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


def test_plain_attention_is_for_a_cpu_and_changes_no_answer(base: str) -> None:
    model = load_base(base).model.eval()
    tokens = torch.arange(1, 9)[None]
    plain_attention(model, "cuda")
    with torch.no_grad():
        before = model(tokens).logits
    assert model.config._attn_implementation == "sdpa"
    plain_attention(model, "cpu")
    with torch.no_grad():
        after = model(tokens).logits
    assert model.config._attn_implementation == "eager"
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("units", "computes"), [({}, False), ({"amx_bf16": True}, True), ({"avx512_bf16": True}, True)]
)
def test_a_cpu_without_units_for_bfloat16_trains_in_float32(
    units: dict[str, bool], computes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert LAPTOP.warm_start.bf16
    assert shared_arguments(LAPTOP.warm_start, Path("staging"), "cpu")["bf16"] is computes


def test_a_generation_casts_its_weights_once() -> None:
    class Layer(torch.nn.Linear):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):  # as accelerate wraps a model
                return super().forward(rows)

        @torch.no_grad()
        def generate(self, rows: torch.Tensor, tokens: int) -> torch.Tensor:
            for _ in range(tokens):
                rows = self(rows).float()
            return rows

    def casts_of(model: Layer) -> tuple[int, torch.Tensor]:
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            found = model.generate(rows, 5)
        events = {event.key: event.count for event in profiled.key_averages()}
        return events["aten::copy_"], found

    torch.manual_seed(7)
    rows, plain = torch.randn(3, 8), Layer(8, 8)
    often, expected = casts_of(plain)
    cast_once(plain, "cpu")
    once, found = casts_of(plain)
    assert often - once == 4 * 2  # the weight and the bias of all forward passes but the first
    assert torch.equal(found, expected)
    assert not torch.is_autocast_enabled("cpu")
