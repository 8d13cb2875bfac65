"""A checkpoint's lists by the engine that will serve it, in this process: int8 weights, ten times as quick on a CPU.

What is measured is then what readers get. `--engine transformers` writes with the weights as they were trained.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.policies import LARGEST_N, Completions, Writing
from offline.release.served_code import ServedStudent
from schemas.prompt import PromptVersion, render_prompt


class ConvertedModel:
    """Converted at the first question, into a folder that goes with this object."""

    def __init__(self, folder: str, prompt: PromptVersion, writing: Writing, *, precision: str = "auto") -> None:
        self._folder, self._prompt, self._writing, self._precision = folder, prompt, writing, precision
        self._scratch = tempfile.TemporaryDirectory(prefix="keenstream-engine-")
        self._student: ServedStudent | None = None

    def __call__(self, readers: Sequence[HeldOutReader], seed: int) -> Completions:
        """The greedy list of each reader, then the sampled ones."""
        self._student = self._student or self._converted()
        prompts = [render_prompt(reader.profile, self._prompt) for reader in readers]
        rows: list[tuple[str, ...]] = [(text,) for text in self._student.write(prompts)]
        if self._writing.samples > 1:
            more = self._student.sample(prompts, self._writing.samples - 1, seed=seed)
            rows = [(*first, *others) for first, others in zip(rows, more, strict=True)]
        return {reader.user_id: row for reader, row in zip(readers, rows, strict=True)}

    def _converted(self) -> ServedStudent:
        from offline.release.student import convert
        from offline.training.bases import load_base, save_model

        merged, served = Path(self._scratch.name) / "merged", Path(self._scratch.name) / "served"
        save_model(load_base(self._folder), merged)
        names = {"name": "evaluated", "version": "1", "source": ""}
        convert(merged, served, **names, prompt_version=self._prompt, progress=lambda step: None)
        return ServedStudent(
            served,
            precision=self._precision,
            max_new_tokens=self._writing.max_new_tokens,
            temperature=self._writing.temperature,
            top_p=1.0,
            max_samples=LARGEST_N,
        )
