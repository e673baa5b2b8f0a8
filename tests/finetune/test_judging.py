"""A model judges answers, in both orders; the stub compares words with the expected answer."""

import os
import subprocess
import sys
import threading

import pytest
from pytest_django import Settings

from finetune import evaluation, judging
from finetune.models import Dataset, Evaluation
from kb.backends import get_backend
from kb.models import Job
from tests.finetune.answered import adapter_of, answered
from tests.model_server import ModelServer, answering, running

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_judge_of_its_own(settings: Settings) -> None:
    settings.JUDGE = None


@pytest.fixture
def judge(settings: Settings, model_server: ModelServer) -> object:
    with answering(settings, url=model_server.url, base_model="stub-normal"):
        yield model_server


async def test_the_better_answer_wins_wherever_it_stands(judge: object) -> None:
    asked = ("Which colour?", "It is red.")
    assert await judging.prefer(*asked, "It is red.", "Who knows.") == "first"
    assert await judging.prefer(*asked, "Who knows.", "It is red.") == "second"
    assert await judging.prefer(*asked, "It is red.", "red. It is") == "tie"


async def test_a_judge_that_favours_a_place_prefers_nobody(judge: object) -> None:
    get_backend("GENERATOR").base_model = "stub-hostile"
    assert await judging.prefer("Which?", "Red.", "Red.", "Blue.") == "tie"


def judged(dataset: Dataset) -> Evaluation:
    """Let an agent take over an evaluation of which only the judging is left."""
    made = answered(adapter_of(dataset))
    job = Job.objects.create(kind=Job.Kind.EVALUATE)
    Evaluation.objects.filter(pk=made.pk).update(job=job, state="queued", passed=None)
    claimed = Job.objects.claim(Job.Kind.EVALUATE)
    assert claimed is not None
    evaluation.evaluate(claimed, stop=threading.Event())
    made.refresh_from_db()
    return made


def test_an_evaluation_counts_what_the_judge_prefers(judge: object, dataset: Dataset) -> None:
    made = judged(dataset)
    label = "The model of the chats (stub-normal)"
    assert made.results["judge"] == {"adapter": 8, "base": 0, "tie": 0, "label": label}
    assert made.passed


def test_a_judge_that_is_away_leaves_a_sentence(judge: object, dataset: Dataset) -> None:
    get_backend("GENERATOR").base_model = "stub-503"
    made = judged(dataset)
    assert made.results["judge"]["problem"] == "The model server is not ready."
    assert (made.state, made.passed) == ("done", True)


def test_a_judge_of_its_own_is_asked_and_not_the_model_of_the_chats(
    judge: object, model_server: ModelServer, dataset: Dataset, settings: Settings
) -> None:
    with running() as other:
        settings.JUDGE = {
            "BACKEND": "kb.generators.chat_completions.ChatCompletionsGenerator",
            "OPTIONS": {"url": other.url, "base_model": "stub-judge", "temperature": 0.0},
        }
        get_backend("GENERATOR").base_model = "stub-503"
        made = judged(dataset)
        assert made.results["judge"]["label"] == "The judge (stub-judge)"
        assert made.results["judge"]["adapter"] == 8
        assert "problem" not in made.results["judge"]
        assert other.stats()["requests"] == 16
    assert model_server.stats()["requests"] == 0


def test_a_judge_needs_no_model_of_the_chats(settings: Settings) -> None:
    settings.GENERATOR_NAME = "extractive"
    assert not judging.has_model()
    settings.JUDGE = {"BACKEND": "kb.generators.chat_completions.ChatCompletionsGenerator"}
    assert judging.has_model()


def test_the_settings_name_a_judge_by_its_address() -> None:
    code = "from config import settings; print(settings.JUDGE)"
    environment = {
        **os.environ,
        "JUDGE_URL": "http://judge:9",
        "JUDGE_NAME": "big",
        "JUDGE_KEY": "k",
    }
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    for word in ("'http://judge:9'", "'big'", "'k'", "ChatCompletionsGenerator"):
        assert word in told
