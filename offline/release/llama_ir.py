"""A Llama-family model as a stateful OpenVINO graph with int8 weights, built straight from its safetensors.

No tracing and no exporter: the graph is the dozen operators of the architecture, so the conversion takes seconds, needs
no second environment and does not move with releases of transformers. A test compares it with transformers' own logits.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset15 as op
from openvino.op.util import Variable, VariableInfo

from schemas.errors import UsageError

LEAST_SCALE = 2.0**-24  # the smallest that float16 has: a row of zeros is divided by it

Weights = Callable[[str], npt.NDArray[np.float32]]
Node = Any  # openvino's nodes carry no type information


class Rope(msgspec.Struct, frozen=True):
    """Rotary position settings; only the plain kind is built."""

    rope_theta: float = 10_000.0
    rope_type: str = "default"


class LlamaShape(msgspec.Struct, frozen=True):
    """The fields of a Hugging Face `config.json` that fix the graph."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rms_norm_eps: float
    head_dim: int | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    hidden_act: str = "silu"
    rope_parameters: Rope = Rope()

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads


def read_shape(hf_folder: Path) -> LlamaShape:
    shape = msgspec.json.decode((hf_folder / "config.json").read_bytes(), type=LlamaShape)
    plain = shape.model_type == "llama" and shape.hidden_act == "silu" and shape.rope_parameters.rope_type == "default"
    if not plain or shape.attention_bias or shape.mlp_bias:
        raise UsageError(
            f"{hf_folder}: only Llama models without biases and with plain rotary positions are converted, "
            f"this is {shape.model_type!r}; serve it with engine 'transformers' or 'vllm' instead"
        )
    return shape


def read_weights(hf_folder: Path) -> Weights:
    """Tensors by name as float32, read one at a time, so that memory stays at one tensor."""
    from safetensors import safe_open

    files: list[Any] = [safe_open(path, framework="pt") for path in sorted(hf_folder.glob("*.safetensors"))]
    where = {name: file for file in files for name in file.keys()}  # noqa: SIM118  (not a dict)
    if not where:
        raise UsageError(f"{hf_folder} holds no *.safetensors; save the model with save_pretrained first")
    return lambda name: where[name].get_tensor(name).float().numpy()


def ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def int8_rows(weight: npt.NDArray[np.float32]) -> Node:
    """A matrix as int8 with one scale per row, in the form that OpenVINO's matrix multiplication reads directly."""
    scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True) / 127.0, LEAST_SCALE).astype(np.float16)
    rows = np.clip(np.rint(weight / scale.astype(np.float32)), -127, 127).astype(np.int8)
    halves = op.multiply(op.convert(op.constant(rows), "f16"), op.constant(scale))
    return op.convert(halves, "f32")


def rms_norm(x: Node, weight: npt.NDArray[np.float32], epsilon: float) -> Node:
    square = op.reduce_mean(op.power(x, np.float32(2.0)), ints(-1), keep_dims=True)
    inverse = op.divide(np.float32(1.0), op.sqrt(op.add(square, np.float32(epsilon))))
    return op.multiply(op.constant(weight[None, None, :]), op.multiply(x, inverse))


def rotate(x: Node, cos: Node, sin: Node, half: int) -> Node:
    """Rotary positions, in the order of operations that OpenVINO fuses into one."""
    first = op.slice(x, ints(0), ints(half), ints(1), ints(3))
    second = op.slice(x, ints(half), ints(2**31 - 1), ints(1), ints(3))
    turned = op.concat([op.multiply(second, np.float32(-1.0)), first], axis=-1)
    return op.add(op.multiply(x, cos), op.multiply(turned, sin))


class LlamaGraph:
    """Builds the graph layer by layer; the state of each layer (keys and values) lives in the graph."""

    def __init__(self, shape: LlamaShape, weights: Weights) -> None:
        self.shape, self.weights = shape, weights
        self.ids = self._input("input_ids", [-1, -1], np.int64)
        self.attention = self._input("attention_mask", [-1, -1], np.int64)
        self.positions = self._input("position_ids", [-1, -1], np.int64)
        self.beams = self._input("beam_idx", [-1], np.int32)
        self.batch = op.gather(op.shape_of(self.ids), ints(0), np.int64(0))
        self.assigns: list[Node] = []

    def build(self) -> ov.Model:
        table = int8_rows(self.weights("model.embed_tokens.weight"))
        x = op.gather(table, op.convert(self.ids, "i32"), np.int32(0))
        cos, sin = self._rotary()
        mask = self._mask()
        for layer in range(self.shape.num_hidden_layers):
            x = self._layer(x, f"model.layers.{layer}", cos, sin, mask)
        x = rms_norm(x, self.weights("model.norm.weight"), self.shape.rms_norm_eps)
        head = table if self.shape.tie_word_embeddings else int8_rows(self.weights("lm_head.weight"))
        logits = op.result(op.matmul(x, head, False, True), name="logits")
        logits.output(0).get_tensor().set_names({"logits"})
        return ov.Model([logits], self.assigns, [self.ids, self.attention, self.positions, self.beams], "llama")

    @staticmethod
    def _input(name: str, shape: list[int], kind: type) -> Node:
        node = op.parameter(shape, kind, name=name)
        node.output(0).get_tensor().set_names({name})
        return node

    def _rotary(self) -> tuple[Node, Node]:
        size = self.shape.head_size
        powers = np.arange(0, size, 2, dtype=np.float32) / size
        inverse = (1.0 / self.shape.rope_parameters.rope_theta**powers).astype(np.float32).reshape(1, -1, 1)
        column = op.convert(op.unsqueeze(self.positions, np.int64(1)), "f32")
        angles = op.transpose(op.matmul(op.constant(inverse), column, False, False), ints(0, 2, 1))
        both = op.concat([angles, angles], axis=-1)
        return op.unsqueeze(op.cos(both), np.int64(1)), op.unsqueeze(op.sin(both), np.int64(1))

    def _mask(self) -> Node:
        """True where a query position may look: not later than itself, and not padding."""
        total = op.gather(op.shape_of(self.attention), np.int64(1), np.int64(0))
        new = op.gather(op.shape_of(self.ids), np.int64(1), np.int64(0))
        keys = op.range(np.int64(0), total, np.int64(1), "i64")
        queries = op.range(op.subtract(total, new), total, np.int64(1), "i64")
        causal = op.less_equal(op.unsqueeze(keys, np.int64(0)), op.unsqueeze(queries, np.int64(1)))
        real = op.not_equal(op.unsqueeze(self.attention, ints(1, 2)), np.int64(0))
        return op.logical_and(op.unsqueeze(causal, ints(0, 1)), real)

    def _layer(self, x: Node, name: str, cos: Node, sin: Node, mask: Node) -> Node:
        normed = rms_norm(x, self.weights(f"{name}.input_layernorm.weight"), self.shape.rms_norm_eps)
        x = op.add(x, self._attend(normed, f"{name}.self_attn", cos, sin, mask))
        normed = rms_norm(x, self.weights(f"{name}.post_attention_layernorm.weight"), self.shape.rms_norm_eps)
        gate = op.swish(self._linear(normed, f"{name}.mlp.gate_proj"))
        wide = op.multiply(gate, self._linear(normed, f"{name}.mlp.up_proj"))
        return op.add(x, self._linear(wide, f"{name}.mlp.down_proj"))

    def _attend(self, x: Node, name: str, cos: Node, sin: Node, mask: Node) -> Node:
        shape, half = self.shape, self.shape.head_size // 2
        query = rotate(self._heads(x, f"{name}.q_proj", shape.num_attention_heads), cos, sin, half)
        key = rotate(self._heads(x, f"{name}.k_proj", shape.num_key_value_heads), cos, sin, half)
        value = self._heads(x, f"{name}.v_proj", shape.num_key_value_heads)
        keys, values = self._remember(key, f"{name}.key"), self._remember(value, f"{name}.value")
        mixed = op.scaled_dot_product_attention(query, self._widen(keys), self._widen(values), mask)
        flat = op.reshape(op.transpose(mixed, ints(0, 2, 1, 3)), ints(0, 0, -1), True)
        return self._linear(flat, f"{name}.o_proj")

    def _linear(self, x: Node, name: str) -> Node:
        return op.matmul(x, int8_rows(self.weights(f"{name}.weight")), False, True)

    def _heads(self, x: Node, name: str, heads: int) -> Node:
        split = op.reshape(self._linear(x, name), ints(0, 0, heads, self.shape.head_size), True)
        return op.transpose(split, ints(0, 2, 1, 3))

    def _remember(self, new: Node, name: str) -> Node:
        """Past and new along the length axis; the past is a variable of the graph."""
        heads, size = self.shape.num_key_value_heads, self.shape.head_size
        info = VariableInfo()
        info.data_shape, info.data_type, info.variable_id = ov.PartialShape([-1, heads, -1, size]), ov.Type.f32, name
        variable = Variable(info)
        empty = op.broadcast(np.float32(0.0), op.concat([self.batch, ints(heads, 0, size)], axis=0))
        past = op.gather(op.read_value(empty, variable), self.beams, np.int64(0))
        whole = op.concat([past, new], axis=-2)
        self.assigns.append(op.assign(whole, variable))
        return whole

    def _widen(self, x: Node) -> Node:
        """Each key and value head serves a group of query heads."""
        shape = self.shape
        repeat = shape.num_attention_heads // shape.num_key_value_heads
        if repeat == 1:
            return x
        tiled = op.broadcast(op.unsqueeze(x, np.int64(2)), ints(1, 1, repeat, 1, 1), None, "BIDIRECTIONAL")
        return op.reshape(tiled, ints(0, shape.num_attention_heads, -1, shape.head_size), True)


def build_llama(hf_folder: Path) -> ov.Model:
    """The served graph of the Hugging Face folder `hf_folder`."""
    return LlamaGraph(read_shape(hf_folder), read_weights(hf_folder)).build()
