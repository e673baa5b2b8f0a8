from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from finetune.management import waiting
from finetune.models import InstructionPair
from kb.models import Collection, Job, User
from tests.conftest import AddDocument
from tests.finetune.test_drafting import page
from workers import tasks

pytestmark = pytest.mark.django_db
PLACE = {"collection": "Field notes", "dataset": "Glaciers", "user": "alice"}


@pytest.fixture(autouse=True)
def documents(
    collection: Collection, add_document: AddDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_document("notes.md", page(1))
    monkeypatch.setattr(waiting.time, "sleep", lambda _: tasks.work_on_next(Job.Kind.DRAFT))


def run(**options: object) -> str:
    out = StringIO()
    call_command("draft_pairs", stdout=out, **PLACE | options)
    return out.getvalue()


def test_pairs_are_drafted_and_what_was_left_out_is_said(alice: User) -> None:
    told = run(count=3, style=["factual"])

    assert "3 of 3 pairs" in told
    assert InstructionPair.objects.filter(state="suggested").count() == 3
    assert "left out: This passage was asked about" in run(count=3, style=["factual"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"count": 0}, "--count"),
        ({"distractors": 90, "abstentions": 20}, "100 percent"),
        ({"document": "nowhere"}, "No document"),
        ({"style": ["comparison"]}, "Without a model server"),
        ({"user": "bob"}, "collection"),
    ],
)
def test_what_cannot_be_done_is_said(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        run(**options)
    assert not InstructionPair.objects.exists()
