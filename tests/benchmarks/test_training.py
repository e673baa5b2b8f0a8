"""The comparison of trainers runs on a tiny base, and compares like with like."""

from collections.abc import Iterator

import pytest

pytest.importorskip("torch")

import torch

from benchmarks import training
from finetune import base_model
from tests.finetune import tiny

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[training.Task]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    task = training.Task(tmp_path_factory.mktemp("bench"), "tiny", steps=12)
    base_model.make(task.base, tiny.own_texts(), vocabulary=600, hidden=32, layers=1, steps=20)
    training.write_data(task.data)
    yield task
    torch.set_num_threads(threads)


def test_all_learn_whole_epochs_of_the_same_pairs(task: training.Task) -> None:
    assert len(task.rows("train")) % training.PAIRS == 0
    assert len(task.rows("train")) >= training.PAIRS
    assert len(task.rows("validation")) >= 5


@pytest.mark.parametrize("name", ["recipe", "recipe, not packed", "plain loop"])
def test_a_contender_is_measured_and_learns(task: training.Task, name: str) -> None:
    measured = training.run_one(task, name, peak_tflops=0)

    assert measured["tokens_per_processor_s"] > 100
    assert measured["peak_memory_mb"] > 50
    assert measured["loss"] < training.validation_loss(task, None)


def test_with_a_cards_peak_the_share_in_use_is_told(task: training.Task) -> None:
    measured = training.run_one(task, "recipe, not packed", peak_tflops=0.1)

    assert 0 < measured["mfu"] < 1
