from pathlib import Path

import pytest

from kb.embedders.minilm import MiniLMEmbedder


@pytest.fixture(scope="session")
def graph_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written graph; 2 s, once."""
    return MiniLMEmbedder(tmp_path_factory.mktemp("models") / "minilm.onnx").write_graph()


@pytest.fixture(scope="session")
def minilm(graph_path: Path) -> MiniLMEmbedder:
    return MiniLMEmbedder(graph_path)
