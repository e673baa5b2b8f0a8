"""The agent: what it queues by itself, and that it keeps calm."""

import threading

import pytest

from finetune import evaluation
from finetune.models import Dataset, Evaluation
from kb.models import Collection
from tests.finetune import answered
from workers import trainer

pytestmark = pytest.mark.django_db


@pytest.fixture
def dataset(collection: Collection) -> Dataset:
    return Dataset.objects.create(collection=collection, name="Glaciers")


def test_an_adapter_that_was_never_evaluated_is_queued(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = answered.adapter_of(dataset)
    stop = threading.Event()
    seen: list[str] = []

    def work_on_next(kind: str, _: threading.Event) -> bool:
        seen.append(kind)
        stop.set()
        return False

    monkeypatch.setattr(trainer, "work_on_next", work_on_next)
    trainer.run(stop)

    assert Evaluation.objects.get().adapter == adapter
    assert seen == list(trainer.JOURNEYS)


def test_a_fault_is_logged_and_waited_after(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stop(threading.Event):
        waited = 0.0

        def wait(self, timeout: float | None = None) -> bool:
            self.waited += timeout or 0
            if self.waited >= 3 * trainer.IDLE_S:
                self.set()
            return self.is_set()

    def broken() -> int:
        raise RuntimeError("no such rule")

    monkeypatch.setattr(evaluation, "start_missing", broken)
    stop = Stop()
    trainer.run(stop)

    assert caplog.text.count("a training journey broke") == 3
    assert "no such rule" in caplog.text
