"""A data set of the collection "Field notes", which alice curates and bob only reads."""

import pytest

from finetune import quality
from finetune.models import Dataset, InstructionPair
from kb.models import Collection


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
