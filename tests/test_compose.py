"""compose.yaml and Dockerfile against the code: no container engine is needed to keep them true."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from kb.management.commands import prepare
from workers import tgi_supervisor

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [
    name
    for name, service in SERVICES.items()
    if service.get("build", {}).get("target") in ("app", "train")
]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, flags=re.M | re.S))
EXAMPLE = (ROOT / ".env.example").read_text()
# What the settings read: env.str("NAME"), and the small readers of config/settings.py.
READ_BY_SETTINGS = set(
    re.findall(
        r'(?:env(?:\.\w+)?|choice|positive|whole)\(\s*"([A-Z_]+)"',
        (ROOT / "config" / "settings.py").read_text(),
    )
)
# Held by a person or by other images, not by the settings.
READ_BY_COMPOSE = {"POSTGRES_PASSWORD", "HF_TOKEN", "TGI_CHANGE", "TGI_MEMORY_SHARE"}


def commands() -> list[tuple[str, list[str]]]:
    stages = (stage for name, stage in STAGES.items() if name != "tgi")
    in_dockerfile = [c for s in stages for c in re.findall(r"^CMD (\[.*\])$", s, flags=re.M)]
    return [(name, SERVICES[name]["command"]) for name in OURS] + [
        (f"Dockerfile {number}", yaml.safe_load(command))
        for number, command in enumerate(in_dockerfile)
    ]


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: str(value)[:20])
def test_each_command_exists(name, command):
    match command:
        case ["python", "manage.py", subcommand, *_]:
            assert subcommand in get_commands()
        case ["uvicorn", target, *_]:
            module, _, attribute = target.partition(":")
            assert hasattr(importlib.import_module(module), attribute)
        case ["celery", "-A", module, "worker", *_]:
            assert importlib.import_module(module).app
        case _:
            pytest.fail(f"{name} runs {command}, which this test does not know")


def test_workers_listen_to_every_queue_that_tasks_are_sent_to():
    from workers.app import app

    app.loader.import_default_modules()
    used = {task.queue for name, task in app.tasks.items() if name.startswith("workers.")}
    used = {queue or app.conf.task_default_queue for queue in used}
    heard = {
        queue
        for name in OURS
        if "--queues" in (command := SERVICES[name]["command"])
        for queue in command[command.index("--queues") + 1].split(",")
    }
    assert used <= heard


@pytest.mark.parametrize("name", OURS)
def test_our_services_set_only_variables_that_the_settings_read(name):
    assert set(SERVICES[name]["environment"]) <= READ_BY_SETTINGS | {"HF_TOKEN"}


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_answers_and_training_reaches_our_services(name):
    page = (ROOT / "docs" / "settings.md").read_text()
    for heading in ("## Answers", "## Training"):
        part = page.split(f"{heading}\n")[1].split("\n## ")[0]
        documented = set(re.findall(r"^\| `(\w+)`", part, flags=re.M))
        assert documented
        assert documented <= set(SERVICES[name]["environment"])


def test_what_tgi_serves_is_what_new_runs_propose():
    command = SERVICES["tgi"]["command"]
    assert command[command.index("--model-id") + 1] == SERVICES["web"]["environment"]["BASE_MODEL"]


def test_tgi_runs_under_its_supervisor_which_takes_its_options():
    entry = yaml.safe_load(re.findall(r"^ENTRYPOINT (\[.*\])$", STAGES["tgi"], flags=re.M)[0])
    assert entry[1:3] == ["-m", "workers.tgi_supervisor"]
    service = SERVICES["tgi"]
    assert service["build"]["target"] == "tgi"
    told = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", part) for part in [*entry[3:], *service["command"]]]
    options = tgi_supervisor.parse(told)
    assert options.folder == Path(SERVICES["web"]["environment"]["TGI_SUPERVISOR_DIR"])
    assert (options.host, options.port) == ("0.0.0.0", 80)
    assert "--dtype" not in options.arguments, "the supervisor sets it"
    assert set(SERVICES["web"]["volumes"]) <= set(service["volumes"]), "adapters under one path"
    key = "${MODEL_SERVER_KEY:-}"
    assert (
        service["environment"]["API_KEY"],
        SERVICES["web"]["environment"]["MODEL_SERVER_KEY"],
    ) == (key, key)
    assert service["depends_on"]["prepare"], "which makes the shared folder, so that both write it"


def test_prepare_makes_the_folder_that_is_shared_with_the_supervisor(tmp_path, settings):
    settings.TGI_SUPERVISOR_DIR = str(tmp_path / "tgi")
    settings.MODEL_SERVER_KIND = "own"
    prepare.make_shared_folder()
    assert not (tmp_path / "tgi").exists()
    settings.MODEL_SERVER_KIND = "tgi"
    prepare.make_shared_folder()
    assert (tmp_path / "tgi").is_dir()


def test_the_supervisor_starts_with_what_its_image_holds_alone(tmp_path):
    """In a clean interpreter: the files that the stage copies, the packages that its lock names."""
    for line in re.findall(r"^COPY ((?:finetune|workers)/.+)$", STAGES["tgi"], flags=re.M):
        *sources, folder = shlex.split(line)
        (tmp_path / folder).mkdir()
        for source in sources:
            shutil.copy(ROOT / source, tmp_path / source)
    for name in re.findall(
        r"^([\w-]+)==", (ROOT / "requirements" / "supervisor.lock").read_text(), flags=re.M
    ):
        link_package(name, tmp_path)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "workers.tgi_supervisor", "--help"],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wanted.json" in done.stdout


def link_package(name: str, folder: Path) -> None:
    """Make what an installed package has at its top importable from `folder`, if it is installed."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return  # for other platforms
    for top in {path.parts[0] for path in found.files or () if path.parts[0] != ".."}:
        place = Path(str(found.locate_file(top)))
        if place.exists() and not (folder / top).exists() and top != "__pycache__":
            (folder / top).symlink_to(place)


def test_the_trainer_has_what_a_run_in_four_bits_needs():
    installed = re.findall(r"-r requirements/(\w+)\.lock", STAGES["train"])
    assert installed == ["train", "qlora"]
    assert re.search(r"^bitsandbytes==", (ROOT / "requirements/qlora.lock").read_text(), flags=re.M)


def test_the_example_names_only_variables_that_something_reads():
    named = set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE, flags=re.M))
    assert named <= READ_BY_SETTINGS | READ_BY_COMPOSE
    asked_for = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "compose.yaml").read_text()))
    assert asked_for <= named


def test_no_secret_has_a_default():
    for line in (ROOT / "compose.yaml").read_text().splitlines():
        if re.search(r"SECRET_KEY|PASSWORD", line):
            assert re.search(r"\$\{\w+:\?", line), line
    assert re.search(r"^SECRET_KEY=$", EXAMPLE, flags=re.M)
    assert re.search(r"^POSTGRES_PASSWORD=$", EXAMPLE, flags=re.M)


def test_only_the_web_server_is_published_and_on_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:8000:8000"]}
    assert re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, flags=re.M) == ["8000"]
    command = SERVICES["web"]["command"]
    assert command[command.index("--port") + 1] == "8000"


def test_addresses_between_services_name_services_and_their_ports():
    environment = SERVICES["web"]["environment"]
    assert "@db:5432/" in environment["DATABASE_URL"]
    assert environment["REDIS_URL"].startswith("redis://redis:6379/")
    assert environment["TEI_URL"] == "http://tei"
    for name in ("tgi", "tei"):
        command = SERVICES[name]["command"]
        assert command[command.index("--port") + 1] == "80"
    assert "#MODEL_SERVER_URL=http://tgi\n" in EXAMPLE


def test_every_volume_is_declared_and_every_declared_one_used():
    used = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    assert used == set(COMPOSE["volumes"])


def test_the_data_folder_is_the_volume():
    for name in OURS:
        assert SERVICES[name]["environment"]["DATA_DIR"] == "/data"
        assert "data:/data" in SERVICES[name]["volumes"]
    assert re.search(r"^VOLUME /data$", DOCKERFILE, flags=re.M)


def test_every_lasting_service_has_a_health_check():
    for name, service in SERVICES.items():
        if service.get("restart") != "no":
            assert service["healthcheck"]["test"], name


def test_every_dependency_is_a_service_that_can_meet_it():
    for service in SERVICES.values():
        for name, dependency in service.get("depends_on", {}).items():
            if dependency["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
            else:
                assert SERVICES[name]["restart"] == "no"


def test_the_images_copy_what_exists():
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.M):
        *sources, _ = shlex.split(line)
        for source in sources:
            assert (ROOT / source).exists(), source


@pytest.mark.parametrize("stage", ["app", "train"])
def test_our_images_run_unprivileged(stage):
    assert re.findall(r"^USER (\w+)$", STAGES[stage], flags=re.M)[-1] == "tacit"


def test_the_image_takes_the_torch_that_the_tests_use():
    tested = re.search(r"^TORCH=(.+)$", (ROOT / "script" / "environment").read_text(), flags=re.M)
    assert tested
    assert f"torch=={tested[1]} " in DOCKERFILE
