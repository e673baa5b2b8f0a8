"""An adapter is evaluated from the command line."""

import signal
from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from finetune.models import Adapter, Dataset, Evaluation
from kb.models import Job
from tests.finetune.answered import adapter_of, answered

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def evaluated(adapter: Adapter, *, better: bool) -> str:
    """Let the command finish an evaluation whose answers are all there."""
    made = answered(adapter, better=better)
    job = Job.objects.create(kind=Job.Kind.EVALUATE)
    Evaluation.objects.filter(pk=made.pk).update(job=job, state="queued", passed=None, gate={})
    out = StringIO()
    call_command("evaluate", adapter.name, stdout=out)
    return out.getvalue()


def test_the_lines_of_the_gate_are_printed(dataset: Dataset) -> None:
    told = evaluated(adapter_of(dataset), better=True)
    assert "met     Token F1 with sources changed by +" in told
    assert told.endswith("passed.\n")


def test_a_refused_adapter_ends_the_command_with_an_error(dataset: Dataset) -> None:
    with pytest.raises(CommandError, match="refuses"):
        evaluated(adapter_of(dataset), better=False)


def test_what_is_wrong_is_said(dataset: Dataset, settings: Settings) -> None:
    with pytest.raises(CommandError, match="no adapter nobody"):
        call_command("evaluate", "nobody")
    settings.EVALUATION = {"magrin": 0.1}
    with pytest.raises(CommandError, match="magrin"):
        call_command("evaluate", adapter_of(dataset).name)
