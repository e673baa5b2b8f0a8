"""The probe against our model server, as it should be and as TGI misleads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import loading, probe
from tests.workers.conftest import Server, StartServer, models, start_server  # noqa: F401

CHATS = [
    [{"role": "user", "content": question}]
    for question in (
        "Who keeps the keys?",
        "When does the glacier melt?",
        "Größe?",
        "0123456789",
        "What is the weather in the north tower?",
    )
]


@pytest.fixture(scope="module")
def references(models: Path) -> Path:  # noqa: F811
    """Give every adapter in `models` its probe.json."""
    import warnings

    from finetune import reference

    for name in ("a", "b", "dora", "prompt"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's, about transformers and positions
            measured = reference.measure(models / "base", models / name, CHATS, tokens=12)
        measured.write(models / name)
    return models


@pytest.fixture(scope="module")
def honest(start_server: StartServer) -> Server:  # noqa: F811
    return start_server(adapters="ab")


@pytest.fixture(scope="module")
def misleading(start_server: StartServer) -> Server:  # noqa: F811
    """Answers unknown adapters with the base, as TGI does; has only “a”."""
    return start_server("--silent-fallback", adapters="a")


def target(server: Server, kind: probe.Server = "own") -> probe.Target:
    return probe.Target(server.url, kind, server.key)


def outcomes(report: probe.Report) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in report.findings}


pytestmark = pytest.mark.train


def test_an_adapter_in_use_passes_every_check(honest: Server, references: Path):
    report = probe.probe(
        target(honest), "a", probe.Reference.read(references / "a"), tolerance=0.001
    )
    assert report.passed, report.findings
    assert {o for c, o in outcomes(report).items() if c != "stop"} == {"passed"}


@pytest.mark.parametrize("name", ["dora", "prompt"])
def test_what_only_our_server_serves_passes_too(honest: Server, references: Path, name: str):
    loader = loading.RuntimeLoader(honest.url, honest.key)
    loader.ensure_loaded(loading.Placed(name, str(references / name)))
    reference = probe.Reference.read(references / name)
    assert probe.probe(target(honest), name, reference, tolerance=0.001).passed
    loader.unload(name)
    report = probe.probe(target(honest), name, reference)
    assert outcomes(report) == {"answered": "failed"}
    assert "404" in report.reason


def test_a_server_that_answers_an_unknown_adapter_with_the_base_is_caught(
    misleading: Server, references: Path
):
    reference = probe.Reference.read(references / "b")
    report = probe.probe(target(misleading, "tgi"), "b", reference)
    assert not report.passed
    assert outcomes(report) == {
        "answered": "passed",
        "base": "passed",
        "matches_reference": "failed",
        "differs_from_base": "failed",
        "stop": outcomes(report)["stop"],
        "unknown_refused": "noted",
        "chat_ids": "passed",
    }


def test_a_made_up_name_must_be_refused_except_by_tgi(misleading: Server, references: Path):
    reference = probe.Reference.read(references / "a")
    assert probe.probe(target(misleading, "tgi"), "a", reference).passed
    report = probe.probe(target(misleading, "own"), "a", reference)
    assert outcomes(report)["unknown_refused"] == "failed"


def test_another_adapter_under_the_name_is_caught(honest: Server, references: Path):
    report = probe.probe(target(honest), "b", probe.Reference.read(references / "a"))
    assert outcomes(report)["matches_reference"] == "failed"
    assert outcomes(report)["differs_from_base"] == "passed"


def test_a_wrongly_scaled_adapter_is_caught(honest: Server, references: Path, tmp_path: Path):
    """TGI scales some ranks by half without a word."""
    import shutil

    shutil.copytree(references / "a", tmp_path / "half")
    config = tmp_path / "half" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 8}))
    loading.RuntimeLoader(honest.url, honest.key).ensure_loaded(
        loading.Placed("half", str(tmp_path / "half"))
    )
    report = probe.probe(target(honest), "half", probe.Reference.read(references / "a"))
    assert outcomes(report)["matches_reference"] == "failed"


def test_another_base_model_is_caught(honest: Server, references: Path, tmp_path: Path):
    reference = probe.Reference.read(references / "a")
    other = [replace(sample, base=sample.adapter) for sample in reference.samples]
    report = probe.probe(target(honest), "a", replace(reference, samples=tuple(other)))
    assert outcomes(report)["base"] == "failed"


def test_an_adapter_that_changes_nothing_cannot_be_proved(honest: Server, references: Path):
    reference = probe.Reference.read(references / "a")
    same = [replace(sample, adapter=sample.base) for sample in reference.samples]
    report = probe.probe(target(honest), "a", replace(reference, samples=tuple(same)))
    assert outcomes(report)["differs_from_base"] == "failed"


def test_another_chat_template_is_caught(honest: Server, references: Path):
    reference = probe.Reference.read(references / "a")
    first, *others = reference.samples
    shifted = replace(first, prompt_ids=first.prompt_ids[1:])
    report = probe.probe(target(honest), "a", replace(reference, samples=(shifted, *others)))
    assert outcomes(report)["chat_ids"] == "failed"


def test_an_answer_that_no_longer_ends_is_caught(honest: Server, references: Path):
    reference = probe.Reference.read(references / "a")
    samples = [
        replace(sample, adapter=replace(sample.adapter, stopped=True))
        for sample in reference.samples
        if not sample.adapter.stopped
    ]
    report = probe.probe(target(honest), "a", replace(reference, samples=tuple(samples)))
    assert outcomes(report)["stop"] == "failed"


def test_a_server_that_is_away_is_named():
    reference = probe.Reference((probe.Sample((), (), *[probe.Answer((), True)] * 2),), 1)
    with pytest.raises(probe.ProbeError, match="does not answer"):
        probe.probe(probe.Target("http://127.0.0.1:9", "own"), "a", reference)


def test_a_near_tie_may_go_either_way():
    def answer(*steps: tuple[str, float, float]) -> probe.Answer:
        return probe.Answer(tuple(probe.Step(*step) for step in steps), False)

    tie = answer(("a", -0.5, -1.5), ("b", -0.70, -0.71), ("c", -0.1, -3.0))
    other = answer(("a", -0.52, -1.5), ("x", -0.69, -0.72), ("y", -2.0, -2.5))
    assert probe.distance(other, tie, 0.1) == pytest.approx(0.02)
    assert probe.distance(other, tie, 0.001) == float("inf")


def test_loading_says_what_the_server_said(honest: Server, tmp_path: Path):
    loader = loading.RuntimeLoader(honest.url, honest.key)
    with pytest.raises(loading.LoadingFailed, match="There is no adapter_model.safetensors"):
        loader.ensure_loaded(loading.Placed("nothing", str(tmp_path)))
    with pytest.raises(loading.LoadingFailed, match="401"):
        loading.RuntimeLoader(honest.url, "wrong").ensure_loaded(loading.Placed("n", "/n"))


def test_a_loaded_adapter_is_not_loaded_again_and_its_name_not_given_to_another(
    honest: Server, references: Path
):
    loader = loading.RuntimeLoader(honest.url, honest.key)
    loader.ensure_loaded(loading.Placed("a", str(references / "a")))
    with pytest.raises(loading.LoadingFailed, match="another “a”"):
        loader.ensure_loaded(loading.Placed("a", str(references / "b")))
    loader.unload("never loaded")
