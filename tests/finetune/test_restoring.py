"""What is loaded again, how often it is tried, and what is left alone.

With a real server that starts anew: tests/finetune/test_activation.py.
"""

from pathlib import Path

import pytest
from pytest_django import Settings

from finetune import loading, restoring
from finetune.models import Adapter
from kb.models import ModelDeployment, User
from tests.finetune.activating import deployed

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nobody_answers(away: None, settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path


@pytest.fixture
def adapter(adapter: Adapter, alice: User) -> Adapter:
    Adapter.objects.update(is_wanted=True)
    deployed(adapter, alice)
    return adapter


def test_a_server_that_is_away_is_said_once_and_blamed_on_no_adapter(
    adapter: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    watch = restoring.Watch()
    assert [watch.look() for _ in range(3)] == [[]] * 3
    assert caplog.text.count("cannot be reached") == 1


def test_nothing_is_asked_for_what_serves_another_base_or_was_unloaded(
    adapter: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    Adapter.objects.update(is_wanted=False)
    assert restoring.Watch().look() == []
    Adapter.objects.update(is_wanted=True)
    ModelDeployment.objects.update(base_model="another")
    assert restoring.Watch().look() == []
    assert caplog.text == ""


def test_tgi_is_asked_again_for_what_its_supervisor_left_out(
    adapter: Adapter, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings.MODEL_SERVER_KIND, settings.TGI_SUPERVISOR_DIR = "tgi", str(tmp_path)
    monkeypatch.setattr(restoring, "TGI_WAIT_S", 0.5)
    refused = loading.SupervisorState((), {adapter.name: "It is dropped."}, revision=100)
    loading.write_state(tmp_path, refused, {})
    watch = restoring.Watch()
    assert watch.look() == []
    assert "It is dropped." in caplog.text
    assert loading.read_wanted(tmp_path) == ({}, 2), "wanted anew, and given up for now"
    assert watch.look() == []
    assert loading.read_wanted(tmp_path)[1] == 2, "not at once again"

    loading.write_state(tmp_path, loading.SupervisorState((adapter.name,), revision=100), {})
    assert restoring.Watch().look() == [], "it serves"


def test_pauses_grow_with_each_failure_up_to_a_quarter_of_an_hour() -> None:
    watch = restoring.Watch()
    for _ in range(10):
        watch._put_off("glacier-v1-0000000a")
    assert watch._pauses == {"glacier-v1-0000000a": restoring.LONGEST_PAUSE_S}
