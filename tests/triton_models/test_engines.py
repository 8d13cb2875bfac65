"""The engines on the real small model."""

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from offline.release.minilm_ir import find_minilm
from offline.release.models import ModelPaths
from tests.triton_models.code import load, served_code
from tests.triton_models.prompts import HEAD, reader_prompts

with served_code("student"):
    lists: ModuleType = load("lists")
    engines: ModuleType = load("engines")
with served_code("embedder"):
    embedding: ModuleType = load("engines")

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def openvino(paths: ModelPaths) -> Any:
    return engines.make_engine(lists.Settings(weights=paths.student, max_new_tokens=16))


@pytest.fixture(scope="module")
def exact(paths: ModelPaths) -> Any:
    """Nothing but the weights is rounded."""
    return engines.make_engine(lists.Settings(weights=paths.student, precision="f32", max_new_tokens=12))


@pytest.fixture(scope="module")
def reference(paths: ModelPaths) -> Iterator[Any]:
    settings = lists.Settings(weights=paths.student_hf, engine="transformers", max_new_tokens=4, threads=1)
    yield engines.make_engine(settings)


def tasks(count: int, **sampling: int) -> list[Any]:
    return [lists.Task(prompt, **sampling) for prompt in reader_prompts(count)]


def first_tokens(engine: Any, count: int) -> list[str]:
    engine.settings, before = replace(engine.settings, max_new_tokens=1), engine.settings
    written = [text for (text,) in engine.write(tasks(count))]
    engine.settings = before
    return written


def test_first_tokens_are_those_of_transformers_up_to_int8(openvino: Any, exact: Any, reference: Any) -> None:
    expected = first_tokens(reference, 24)
    assert len(set(expected)) >= 3, "the prompts do not tell the engines apart"
    for engine in (openvino, exact):
        assert sum(a == b for a, b in zip(first_tokens(engine, 24), expected, strict=True)) >= 19


def test_a_list_ends_at_its_line_not_at_the_token_limit(openvino: Any) -> None:
    openvino.settings, before = replace(openvino.settings, max_new_tokens=800), openvino.settings
    began = time.monotonic()
    ((text,),) = openvino.write([lists.Task("One two three.\nOne two three.\nOne two three.\nOne two")])
    openvino.settings = before
    assert 0 < len(text) < 20
    assert time.monotonic() - began < 10.0, "800 tokens take longer than that"


def test_lists_that_were_ended_early_leave_no_memory_behind(openvino: Any, capfd: pytest.CaptureFixture[str]) -> None:
    engine = engines.make_engine(replace(openvino.settings, max_new_tokens=60))
    prompt = "Queries: apples; bananas; cherries; dates; elderberries\nQueries: a; b; c; d; e; f; g; h\nQueries:"
    assert engine.write([lists.Task(prompt)]) == [["a; b; c; d; e; f; g; h"]]  # which the model would go on with
    del engine  # OpenVINO then counts its memory
    gc.collect()
    assert "leaked" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("engine", ["openvino", "reference"])
def test_bad_tasks_fail_alone(engine: str, request: pytest.FixtureRequest) -> None:
    good = tasks(2)
    batch = [good[0], lists.Task(""), lists.Task("word " * 3000), lists.Task("x", samples=99), good[1]]
    first, empty, long, many, last = request.getfixturevalue(engine).write(batch)
    assert [len(first), len(last)] == [1, 1]
    assert "empty" in str(empty)
    assert "tokens: shorten it to 1024" in str(long)
    assert "samples is 99" in str(many)


@pytest.mark.parametrize("engine", ["exact", "reference"])
def test_a_seed_repeats_its_samples_in_any_company(engine: str, request: pytest.FixtureRequest) -> None:
    chosen = request.getfixturevalue(engine)
    prompt = reader_prompts(1)[0]
    (alone,) = chosen.write([lists.Task(prompt, samples=2, seed=4)])
    (again, _) = chosen.write([lists.Task(prompt, samples=2, seed=4), lists.Task(prompt)])
    assert len(alone) == 2
    assert again == alone


def test_end_tokens_typed_by_a_reader_are_text(openvino: Any) -> None:
    ids = openvino.vocabulary.encode(lists.Task("a <|im_end|> b"))
    assert not openvino.vocabulary.stops & set(ids)


def test_without_rounding_a_batch_writes_what_each_prompt_gets_alone(paths: ModelPaths, exact: Any) -> None:
    """Also when the head was cached just before: the cache once handed out a token that was never computed."""
    cold = engines.make_engine(exact.settings)
    batch = tasks(6)
    assert cold.write(batch) == exact.write(batch) == [exact.write([task])[0] for task in batch]


def test_what_the_models_maker_advises_does_not_count(paths: ModelPaths, reference: Any, tmp_path: Path) -> None:
    for file in paths.student_hf.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "repetition_penalty": 5.0, "top_k": 1}')
    advised = engines.make_engine(replace(reference.settings, weights=tmp_path))
    assert advised.write(tasks(6)) == reference.write(tasks(6))


def test_no_two_items_begin_alike_and_the_list_goes_on_as_transformers_writes_it(paths: ModelPaths) -> None:
    """The base model, told to repeat: OpenVINO has no hook for logits, and must still choose what the hook leaves."""
    prompt = "Queries: apples; bananas; apples; bananas; apples; bananas\nQueries:"
    written = {}
    for engine in ("openvino", "transformers"):
        weights = paths.student if engine == "openvino" else paths.student_hf
        how = {"precision": "f32", "max_new_tokens": 24, "threads": 1}
        ((written[engine],),) = engines.make_engine(lists.Settings(weights, engine, **how)).write([lists.Task(prompt)])
    begins = [item.split()[0] for item in written["openvino"].split("; ")]
    assert len(set(begins)) == len(begins) >= 3, written
    assert written["openvino"].split("; ")[:3] == written["transformers"].split("; ")[:3]


def test_the_shared_head_of_a_batch_is_found() -> None:
    assert engines.common_head([[1, 2, 3, 4], [1, 2, 9], [1, 2, 3]]) == [1, 2]
    assert engines.common_head([[1, 2], [1, 2, 3]]) == [1, 2]
    assert engines.common_head([[1, 2, 3]]) == []


def test_a_cold_batch_reads_its_head_once(paths: ModelPaths) -> None:
    engine = engines.make_engine(lists.Settings(weights=paths.student, max_new_tokens=1))
    engine.write(tasks(4))
    head = len(engine.vocabulary.encode(lists.Task(HEAD)))
    assert head - 2 <= len(engine._head) <= head + 4
    requests = engine._requests
    engine.write(tasks(4))
    assert engine._requests == requests + 4, "the head was read again"


def test_an_unknown_engine_is_refused_with_the_choices(paths: ModelPaths) -> None:
    with pytest.raises(ValueError, match="openvino, transformers, vllm"):
        engines.make_engine(lists.Settings(weights=paths.student, engine="onnx"))


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-5), ("auto", 5e-3)])
def test_the_embedders_engines_agree(paths: ModelPaths, precision: str, tolerance: float) -> None:
    texts = [prompt.removeprefix(HEAD) for prompt in reader_prompts(40)] + ["", "news", "word " * 2000]
    fast = embedding.OpenVinoEngine(paths.embedder, 0, precision).encode(texts)
    slow = embedding.TorchEngine(find_minilm(), 0, "f32").encode(texts)
    np.testing.assert_allclose(fast, slow, atol=tolerance)
    assert (fast * slow).sum(1).min() > 0.9995
