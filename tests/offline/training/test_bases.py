"""What training starts from is decoded as the caller says, not as the model's maker advises."""

import json
import shutil
from pathlib import Path

from offline.training.bases import load_base
from offline.training.greedy import ListWriter

ADVICE = {"do_sample": True, "repetition_penalty": 5.0, "top_k": 1, "top_p": 0.1}


def lists_of(folder: str) -> list[list[str]]:
    loaded = load_base(folder)
    writer = ListWriter(loaded.model, loaded.tokenizer, max_new_tokens=12)
    prompts = ["one prompt", "another prompt"]
    return [writer.write(prompts), *writer.sample(prompts, 2, temperature=1.0, seed=3)]


def test_lists_are_those_without_the_advice(base: str, tmp_path: Path) -> None:
    advised = shutil.copytree(base, tmp_path / "advised")
    (advised / "generation_config.json").write_text(json.dumps(ADVICE))
    assert lists_of(str(advised)) == lists_of(base)
