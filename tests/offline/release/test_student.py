"""Conversion of Hugging Face weights, on a tiny Llama with random weights."""

import json
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from offline.release.llama_ir import build_llama
from offline.release.manifest import Manifest, read_manifest, sha256_of, write_manifest
from offline.release.student import BESIDE_THE_GRAPH, GRAPH, convert
from schemas.errors import UsageError

VOCABULARY = 320

Ids = npt.NDArray[np.int64]


def tiny_llama(folder: Path, *, tied: bool = True, kv_heads: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    for name in BESIDE_THE_GRAPH:
        if not (folder / name).exists():
            (folder / name).write_text("{}")
    return model


def with_int8_rows(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model with each row of its matrices rounded to 255 steps."""
    for weight in model.parameters():
        if weight.ndim == 2:
            scale = (weight.data.abs().amax(1, keepdim=True) / 127).half().float()
            weight.data = (weight.data / scale).round().clamp(-127, 127) * scale
    return model


def compiled(model: ov.Model) -> ov.InferRequest:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
    return ov.Core().compile_model(model, "CPU", settings).create_infer_request()


def logits(request: ov.InferRequest, ids: Ids, mask: Ids) -> npt.NDArray[np.float32]:
    positions = np.clip(mask.cumsum(1) - 1, 0, None)[:, -ids.shape[1] :]
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    result: npt.NDArray[np.float32] = request.infer(inputs | {"beam_idx": np.arange(len(ids), dtype=np.int32)})[
        "logits"
    ]
    return result.copy()


@pytest.mark.parametrize(("tied", "kv_heads"), [(True, 2), (False, 4)])
def test_the_graph_computes_what_transformers_computes(tmp_path: Path, tied: bool, kv_heads: int) -> None:
    """With the same rounded weights; padding on the left, and two steps, so that the graph's memory is used."""
    model = with_int8_rows(tiny_llama(tmp_path, tied=tied, kv_heads=kv_heads))
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (3, 12))
    mask = np.ones_like(ids)
    mask[1, :4] = 0
    with torch.no_grad():
        expected = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    request = compiled(build_llama(tmp_path))
    got = np.concatenate([logits(request, ids[:, :9], mask[:, :9]), logits(request, ids[:, 9:], mask)], axis=1)
    real = mask.astype(bool)
    np.testing.assert_allclose(got[real], expected[real], atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    "change",
    [{"model_type": "qwen2"}, {"attention_bias": True}, {"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}}],
)
def test_another_architecture_is_refused_with_what_to_do(tmp_path: Path, change: dict[str, object]) -> None:
    tiny_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UsageError, match="engine 'transformers' or 'vllm'"):
        build_llama(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    tiny_llama(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="holds no"):
        build_llama(tmp_path)


def converted(hf: Path, out: Path, steps: list[str], version: str = "1") -> Manifest:
    return convert(hf, out, name="tiny", version=version, prompt_version="bare-1", source="test", progress=steps.append)


def test_a_conversion_is_done_once_and_described(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "hf")
    steps: list[str] = []
    manifest = converted(tmp_path / "hf", tmp_path / "out", steps)
    assert manifest == converted(tmp_path / "hf", tmp_path / "out", steps)
    assert steps == ["converting tiny 1 for OpenVINO"]
    assert (manifest.prompt_version, manifest.engine) == ("bare-1", "openvino")
    assert manifest.sha256 == sha256_of(tmp_path / "out" / GRAPH.replace(".xml", ".bin"))
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {GRAPH, "manifest.json", *BESIDE_THE_GRAPH}


def test_another_version_is_converted_anew(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "hf")
    steps: list[str] = []
    converted(tmp_path / "hf", tmp_path / "out", steps)
    assert converted(tmp_path / "hf", tmp_path / "out", steps, version="2").version == "2"
    assert len(steps) == 2


def test_a_manifest_reads_back_and_a_broken_one_counts_as_none(tmp_path: Path) -> None:
    manifest = Manifest(
        name="n", version="1", prompt_version="p", source="s", engine="openvino", recipe="r", sha256="0"
    )
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert not manifest.same_recipe(msgspec.structs.replace(manifest, recipe="r2"))
    (tmp_path / "manifest.json").write_text('{"name": 1}')
    assert read_manifest(tmp_path) is None
