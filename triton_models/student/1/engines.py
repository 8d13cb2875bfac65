"""Three engines behind one call: rendered prompts in, one-line lists out. Chosen by `engine` in config.pbtxt.

All end a list at the same place (lists.py): the first newline or end token, an item that repeats an earlier one, enough
items. In a greedy list no two items begin with the same token (`lists.taken`); not in vLLM, which takes what changes
logits as a class for the whole engine. What else keeps a model from repeating itself is not offered: OpenVINO GenAI has
`no_repeat_ngram_size` in beam search only, and its `repetition_penalty` wrote other lists than that of transformers.
This file sees site-packages and its own folder only.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from lists import Answer, Settings, Task, Vocabulary, each_valid

SHARED_TOKENS = 64  # a common head from this length on is worth a pass of its own


class Engine(Protocol):
    """One answer for each task, in order."""

    def write(self, tasks: Sequence[Task]) -> list[Answer]: ...


def common_head(rows: Sequence[list[int]]) -> list[int]:
    """The tokens that all of several rows begin with; none for a single row."""
    if len(rows) < 2:
        return []
    low, high = min(rows), max(rows)  # what the first and the last in order share, all share
    differ = (place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return low[: next(differ, len(low))]


@dataclass
class _List:
    """A list on its way."""

    prompt: list[int]
    config: Any
    handle: Any
    written: list[int] = field(default_factory=list)
    choosing: bool = False  # the handle is of the beams among which the next token is chosen


class OpenVinoEngine:
    """OpenVINO GenAI on a CPU: int8 weights; keys and values of a shared head of the prompts are computed once."""

    def __init__(self, settings: Settings) -> None:
        import openvino as ov
        import openvino_genai as genai

        self.settings, self.vocabulary = settings, Vocabulary(settings)
        self._tensor, self._config, self._requests = ov.Tensor, genai.GenerationConfig, 0
        self._is_running = genai.GenerationStatus.RUNNING
        self._head: list[int] = []
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = settings.cache_gigabytes
        scheduler.max_num_batched_tokens = 4096
        properties = self._properties(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self._pipeline = genai.ContinuousBatchingPipeline(str(settings.weights), scheduler, "CPU", properties)

    def _properties(self, computes: Sequence[str]) -> dict[str, Any]:
        auto = "bf16" if "BF16" in computes else "f32"
        precision = auto if self.settings.precision == "auto" else self.settings.precision
        threads = self.settings.threads or len(os.sched_getaffinity(0))
        properties = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        if self.settings.precision == "f32":  # asked for: nothing but the weights is rounded
            properties |= {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
        return properties

    def write(self, tasks: Sequence[Task]) -> list[Answer]:
        answers, tokens = each_valid(self.vocabulary, tasks)
        self._read_head(common_head(list(tokens.values())))
        lists: dict[int, list[str]] = {place: [] for place in tokens}
        samples = [(place, sample) for place in tokens for sample in range(tasks[place].samples)]
        begun = [self._begin(tokens[place], self._generation(tasks[place], sample)) for place, sample in samples]
        self._run(begun)
        for (place, _), one in zip(samples, begun, strict=True):
            lists[place].append(self.vocabulary.list_of(one.written))
        return [lists.get(place, answer) for place, answer in enumerate(answers)]

    def _read_head(self, head: list[int]) -> None:
        """Compute what all prompts begin with before them: the cache serves later batches, not one that starts cold.

        The cache takes the last generated token for computed when it is not (openvino-genai 2026.4.1): a prompt that
        goes on with just that token would read garbage. So the head ends with a token that no prompt contains.
        """
        known = head[: len(self._head)] == self._head
        if len(head) - known * len(self._head) < SHARED_TOKENS:
            return
        config = self._config()
        config.max_new_tokens = 1
        self._run([self._begin([*head, min(self.vocabulary.special)], config)])
        self._head = head

    def _run(self, lists: Sequence[_List]) -> None:
        """Step all requests together until each has its list."""
        running = list(lists)
        try:
            while running:
                if self._pipeline.has_non_finished_requests():
                    self._pipeline.step()
                running = [one for one in running if self._advance(one)]
            if self._pipeline.has_non_finished_requests():
                self._pipeline.step()  # or those that were stopped last keep their memory until the next batch
        except Exception:
            for one in lists:  # or the next batch would go on with them
                one.handle.cancel()
            raise

    def _begin(self, tokens: list[int], config: Any) -> _List:
        return _List(tokens, config, self._add(tokens, config))

    def _add(self, tokens: list[int], config: Any) -> Any:
        self._requests += 1
        return self._pipeline.add_request(self._requests, self._tensor(np.array([tokens], dtype=np.int64)), config)

    def _generation(self, task: Task, sample: int) -> Any:
        config = self._config()
        config.max_new_tokens = self.settings.max_new_tokens
        config.stop_token_ids = self.vocabulary.stops
        if task.sampled:
            config.do_sample, config.rng_seed = True, task.seed + sample
            config.temperature, config.top_p = self.settings.temperature, self.settings.top_p
        return config

    def _advance(self, one: _List) -> bool:
        """Take what the step added; False once the list is complete, and then no further token is computed for it."""
        if one.choosing:
            return not self._finished(one) or self._choose(one)
        for token in self._read(one):
            if not one.config.do_sample and token in self.vocabulary.taken(one.written):
                return self._ask_for_choices(one)
            one.written.append(token)
            if self.vocabulary.complete(one.written):
                one.handle.stop()
                return False
        return not self._finished(one)

    def _read(self, one: _List) -> list[int]:
        ids: list[int] = []
        while one.handle.can_read():
            for output in one.handle.read().values():
                ids.extend(output.generated_ids)
        return ids

    def _finished(self, one: _List) -> bool:
        return one.handle.get_status() != self._is_running

    def _ask_for_choices(self, one: _List) -> bool:
        """The engine has no hook for logits: the likeliest tokens of this place are those of beams of length one."""
        one.handle.stop()
        one.choosing = True
        config = self._config()
        config.max_new_tokens = 1
        config.num_beams = config.num_return_sequences = len(self.vocabulary.taken(one.written)) + 1
        one.handle = self._add([*one.prompt, *one.written], config)
        return True

    def _choose(self, one: _List) -> bool:
        """Go on with the likeliest token that is not taken."""
        taken = self.vocabulary.taken(one.written)
        outputs = sorted(one.handle.read_all(), key=lambda output: -output.score)
        free = [token for output in outputs for token in output.generated_ids if token not in taken]
        one.written += free[:1]
        left = self.settings.max_new_tokens - len(one.written)
        if not free or left <= 0 or self.vocabulary.complete(one.written):  # nothing where the engine had no memory
            return False
        one.choosing, one.config.max_new_tokens = False, left
        one.handle = self._add([*one.prompt, *one.written], one.config)
        return True


class TransformersEngine:
    """`generate` of transformers, float32: slow, and the reference for the other two."""

    def __init__(self, settings: Settings) -> None:
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        self.settings, self.vocabulary, self._torch = settings, Vocabulary(settings), torch
        if settings.threads:
            torch.set_num_threads(settings.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = {"auto": torch.float32, "f32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
        self._model = AutoModelForCausalLM.from_pretrained(settings.weights, dtype=dtype).to(device).eval()
        self._model.generation_config = GenerationConfig()  # not what the model's maker advises: OpenVINO ignores it

    def write(self, tasks: Sequence[Task]) -> list[Answer]:
        answers, tokens = each_valid(self.vocabulary, tasks)
        greedy = [place for place in tokens if not tasks[place].sampled]
        if greedy:
            for place, ids in zip(greedy, self._generate([tokens[place] for place in greedy]), strict=True):
                answers[place] = [self.vocabulary.list_of(ids)]
        for place in tokens.keys() - set(greedy):  # the seed belongs to the task: one generate for each
            self._torch.manual_seed(tasks[place].seed)
            chosen = {
                "do_sample": True,
                "temperature": self.settings.temperature,
                "top_p": self.settings.top_p,
                "top_k": 0,
            }
            batch = [tokens[place]] * tasks[place].samples
            answers[place] = [self.vocabulary.list_of(ids) for ids in self._generate(batch, **chosen)]
        return answers

    def _generate(self, batch: list[list[int]], **sampling: Any) -> list[list[int]]:
        torch, width = self._torch, max(map(len, batch))
        pad = min(self.vocabulary.stops)
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in batch], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=self._model.device)
        whole = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.settings.max_new_tokens,
            eos_token_id=sorted(self.vocabulary.stops),
            pad_token_id=pad,
            stopping_criteria=[self._complete(width)],
            logits_processor=[] if sampling else [self._distinct(width)],
            **({"do_sample": False} | sampling),
        )
        written: list[list[int]] = whole[:, width:].tolist()
        return written

    def _complete(self, width: int) -> Any:
        def done(ids: Any, _scores: Any, **_rest: Any) -> Any:
            rows = [self.vocabulary.complete(row) for row in ids[:, width:].tolist()]
            return self._torch.tensor(rows, device=ids.device)

        return done

    def _distinct(self, width: int) -> Any:
        def without_taken(ids: Any, scores: Any) -> Any:
            for row, written in enumerate(ids[:, width:].tolist()):
                scores[row, sorted(self.vocabulary.taken(written))] = float("-inf")
            return scores

        return without_taken


class VllmEngine:
    """vLLM on a GPU. Written against its documented interface; NOT RUN here, since no GPU was at hand."""

    def __init__(self, settings: Settings) -> None:
        from vllm import LLM

        self.settings, self.vocabulary = settings, Vocabulary(settings)
        dtype = {"auto": "auto", "bf16": "bfloat16", "f16": "float16", "f32": "float32"}[settings.precision]
        self._model = LLM(
            str(settings.weights),
            dtype=dtype,
            enable_prefix_caching=True,
            max_model_len=settings.max_prompt_tokens + settings.max_new_tokens,
        )

    def write(self, tasks: Sequence[Task]) -> list[Answer]:
        answers, tokens = each_valid(self.vocabulary, tasks)
        places = list(tokens)
        prompts = [{"prompt_token_ids": tokens[place]} for place in places]
        outputs = self._model.generate(prompts, [self._sampling(tasks[place]) for place in places], use_tqdm=False)
        for place, output in zip(places, outputs, strict=True):
            answers[place] = [self.vocabulary.list_of(sample.token_ids) for sample in output.outputs]
        return answers

    def _sampling(self, task: Task) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            n=task.samples,
            seed=task.seed if task.sampled else None,
            temperature=self.settings.temperature if task.sampled else 0.0,
            top_p=self.settings.top_p if task.sampled else 1.0,
            max_tokens=self.settings.max_new_tokens,
            stop_token_ids=sorted(self.vocabulary.stops),
        )


ENGINES: dict[str, type[Engine]] = {
    "openvino": OpenVinoEngine,
    "transformers": TransformersEngine,
    "vllm": VllmEngine,
}


def make_engine(settings: Settings) -> Engine:
    if settings.engine not in ENGINES:
        raise ValueError(f"config.pbtxt: engine is {settings.engine!r}, choose one of {', '.join(ENGINES)}")
    chosen: Any = ENGINES[settings.engine]
    engine: Engine = chosen(settings)
    return engine
