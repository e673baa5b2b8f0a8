"""A data set of the collection "Field notes", which alice curates and bob only reads."""

from pathlib import Path

import pytest

from finetune import quality
from finetune.models import Dataset, InstructionPair
from kb.models import Collection
from tests.finetune import tiny


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


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model that has learned next to nothing; nobody writes into its folder."""
    from finetune import base_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    base_model.make(folder, tiny.own_texts(), vocabulary=600, hidden=64, layers=2, steps=30)
    return folder
