"""Write a BERT sentence encoder as an ONNX graph, from its safetensors file and without torch.

Shapes: B batch, T tokens of the longest text, D width, H attention heads.
The graph holds the encoder, mean pooling over the real tokens, and scaling to unit length, in plain
ONNX operators: the fused operators of ONNX Runtime (Attention, SkipLayerNormalization, BiasGelu)
were 0–8 % slower per core at every shape tried. Weights lie in a second file, which ONNX Runtime
maps into memory: a process holds 109 MB instead of 176, and several processes share the pages.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

BUILDER_VERSION = 1  # raise it whenever the graph changes: older graphs are then written anew
OPSET = 20  # the first with Gelu
IR_VERSION = 10
MASKED = -1e9  # added to the attention scores of padding; exp of it is 0 in float32


@cache
def source_of(model_dir: Path) -> str:
    """Name what a graph is made of: a digest of weights and configuration, and the builder."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update((model_dir / "config.json").read_bytes())
    with (model_dir / "model.safetensors").open("rb") as weights:
        while block := weights.read(1 << 20):
            digest.update(block)
    return f"{digest.hexdigest()}-{BUILDER_VERSION}"


def write(model_dir: Path, target: Path) -> Path:
    """Write the graph of `model_dir` to `target`, its weights beside it; returns `target`.

    Both files appear whole or not at all, and processes that write at once do not disturb each
    other: the weights are named by their content, and the graph takes its place last.
    """
    import onnx  # 40 MB and 0.3 s that only this function needs
    from safetensors.numpy import load_file

    source = source_of(model_dir)
    config = json.loads((model_dir / "config.json").read_text())
    graph = _Graph(load_file(model_dir / "model.safetensors"))
    _add_encoder(graph, config)
    weights_path = target.with_name(f"{target.stem}-{source}.weights")
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(weights_path, graph.lay_out_weights(weights_path.name))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "sentence_encoder",
            [
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["B", "T"])
                for name in ("input_ids", "attention_mask")
            ],
            [
                onnx.helper.make_tensor_value_info(
                    "embeddings", onnx.TensorProto.FLOAT, ["B", config["hidden_size"]]
                )
            ],
            graph.initializers,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.helper.set_model_props(model, {"source": source})
    _replace(target, model.SerializeToString())
    for older in target.parent.glob(f"{target.stem}-*.weights"):
        if older != weights_path:
            older.unlink(missing_ok=True)
    return target


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place of `path` at once, on the disk before it is visible."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # other users may run the same model
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class _Graph:
    """Collects nodes and weights; every method returns the name of the tensor it adds."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        import onnx

        self.tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._large: list[tuple[onnx.TensorProto, bytes]] = []
        self._onnx = onnx

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(
            self._onnx.helper.make_node(operator, list(inputs), [output], **attributes)
        )
        return output

    def constant(self, values: np.ndarray) -> str:
        """Add a tensor, in the file of weights where it is large."""
        name = f"constant_{len(self.initializers)}"
        if values.nbytes < 4096:
            self.initializers.append(self._onnx.numpy_helper.from_array(values, name))
            return name
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = self._onnx.TensorProto(name=name, data_type=kind, dims=values.shape)
        tensor.data_location = self._onnx.TensorProto.EXTERNAL
        self.initializers.append(tensor)
        self._large.append((tensor, np.ascontiguousarray(values).tobytes()))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def lay_out_weights(self, file_name: str) -> bytes:
        """Give each large tensor its place in the file of weights; returns that file."""
        content = bytearray()
        for tensor, values in self._large:
            content += bytes(-len(content) % 4096)  # ONNX Runtime maps whole memory pages
            place = {"location": file_name, "offset": len(content), "length": len(values)}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            content += values
        return bytes(content)

    def dense(self, states: str, weights: str, scale: float = 1.0) -> str:
        """Multiply by a layer's matrix and add its bias; `scale` is folded into both."""
        matrix = self.constant(self.tensors[f"{weights}.weight"].T * np.float32(scale))
        bias = self.constant(self.tensors[f"{weights}.bias"] * np.float32(scale))
        return self.node("Add", self.node("MatMul", states, matrix), bias)

    def layer_norm(self, states: str, weights: str, epsilon: float) -> str:
        gain = self.constant(self.tensors[f"{weights}.weight"])
        bias = self.constant(self.tensors[f"{weights}.bias"])
        return self.node("LayerNormalization", states, gain, bias, axis=-1, epsilon=epsilon)


def _add_encoder(graph: _Graph, config: dict[str, int]) -> None:
    """Add everything from token ids and mask, both (B, T), to the tensor `embeddings`, (B, D)."""
    epsilon = config["layer_norm_eps"]
    mask = graph.node("Cast", "attention_mask", to=1)  # (B, T) float: 1 a token, 0 padding
    states = _add_token_states(graph, epsilon)
    one, masked = (graph.constant(np.array([value], np.float32)) for value in (1, MASKED))
    scores_bias = graph.node("Mul", graph.node("Sub", one, mask), masked)
    scores_bias = graph.node("Unsqueeze", scores_bias, graph.integers(1, 2))  # (B, 1, 1, T)
    attend = _attention(graph, config, scores_bias)
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        context = attend(states, f"{name}.attention.self")
        context = graph.dense(context, f"{name}.attention.output.dense")
        states = graph.node("Add", context, states)
        states = graph.layer_norm(states, f"{name}.attention.output.LayerNorm", epsilon)
        hidden = graph.node("Gelu", graph.dense(states, f"{name}.intermediate.dense"))  # exact erf
        hidden = graph.dense(hidden, f"{name}.output.dense")
        states = graph.node("Add", hidden, states)
        states = graph.layer_norm(states, f"{name}.output.LayerNorm", epsilon)
    # The mean and the sum over the tokens point the same way, so the sum is enough.
    rows = graph.node("Unsqueeze", mask, graph.integers(1))  # (B, 1, T)
    total = graph.node("Squeeze", graph.node("MatMul", rows, states), graph.integers(1))  # (B, D)
    graph.node("LpNormalization", total, axis=-1, p=2)
    graph.nodes[-1].output[0] = "embeddings"


def _add_token_states(graph: _Graph, epsilon: float) -> str:
    """Add the embedding layer; returns (B, T, D).

    The model reads single texts only, so the embedding of the first segment is part of every
    position's.
    """
    tensors = graph.tensors
    segment = tensors["embeddings.token_type_embeddings.weight"][0]
    positions = graph.constant(tensors["embeddings.position_embeddings.weight"] + segment)
    words = graph.constant(tensors["embeddings.word_embeddings.weight"])
    length = graph.node("Shape", "input_ids", start=1, end=2)
    zero = graph.integers(0)
    states = graph.node(
        "Add",
        graph.node("Gather", words, "input_ids"),
        graph.node("Slice", positions, zero, length, zero),
    )
    return graph.layer_norm(states, "embeddings.LayerNorm", epsilon)


def _attention(
    graph: _Graph, config: dict[str, int], scores_bias: str
) -> Callable[[str, str], str]:
    """Give the function that adds one layer's self-attention: states (B, T, D) to (B, T, D)."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    split = graph.integers(0, 0, heads, width // heads)  # 0 keeps an axis as it is
    join = graph.integers(0, 0, width)
    scale = (width // heads) ** -0.5

    def attend(states: str, weights: str) -> str:
        def project(part: str, axes: list[int], scale: float = 1.0) -> str:
            dense = graph.dense(states, f"{weights}.{part}", scale)
            return graph.node("Transpose", graph.node("Reshape", dense, split), perm=axes)

        query = project("query", [0, 2, 1, 3], scale)  # (B, H, T, D / H)
        key = project("key", [0, 2, 3, 1])  # (B, H, D / H, T)
        value = project("value", [0, 2, 1, 3])
        scores = graph.node("Add", graph.node("MatMul", query, key), scores_bias)  # (B, H, T, T)
        context = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
        return graph.node("Reshape", graph.node("Transpose", context, perm=[0, 2, 1, 3]), join)

    return attend
