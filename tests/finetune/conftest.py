"""A data set of the collection "Field notes", which alice curates and bob only reads."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from finetune import quality
from finetune.models import Adapter, Dataset, InstructionPair
from kb.models import Collection
from tests.finetune import tiny
from tests.finetune.activating import make_adapter
from tests.model_server import answering


@pytest.fixture
def dataset(collection: Collection) -> Dataset:
    return Dataset.objects.create(collection=collection, name="Glaciers")


@pytest.fixture
def pair(dataset: Dataset) -> InstructionPair:
    content = {"instruction": "When does the glacier melt?", "output": "In August."}
    return InstructionPair.objects.create(
        dataset=dataset,
        collection=dataset.collection,
        origin=InstructionPair.Origin.TYPED,
        content_hash=quality.content_hash(**content),
        **content,
    )


@pytest.fixture
def adapter(dataset: Dataset, tmp_path: Path) -> Adapter:
    return make_adapter(dataset, "glacier-v1-0000000a", data_dir=tmp_path)


@pytest.fixture
def away(settings: Settings) -> Iterator[None]:
    """A model server that nobody can reach."""
    settings.MODEL_SERVER_URL = settings.MODEL_SERVER_ADMIN_URL = "http://127.0.0.1:9"
    with answering(settings, url=settings.MODEL_SERVER_URL, base_model="tgi"):
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model that has learned next to nothing; nobody writes into its folder."""
    from finetune import base_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    base_model.make(folder, tiny.own_texts(), vocabulary=600, hidden=64, layers=2, steps=30)
    return folder
