"""compose.yaml and Dockerfile against the code: no container engine is needed to keep them true."""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
# What the settings read: env.str("NAME"), and the small readers of config/settings.py.
READ_BY_SETTINGS = set(
    re.findall(
        r'(?:env(?:\.\w+)?|choice|positive)\(\s*"([A-Z_]+)"',
        (ROOT / "config" / "settings.py").read_text(),
    )
)
# Held by a person or by other images, not by the settings.
READ_BY_COMPOSE = {"POSTGRES_PASSWORD", "MODEL_ID", "HF_TOKEN"}


def commands() -> list[tuple[str, list[str]]]:
    in_dockerfile = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, flags=re.M)
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
    assert set(SERVICES[name]["environment"]) <= READ_BY_SETTINGS


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


def test_the_image_copies_what_exists_and_runs_unprivileged():
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, flags=re.M):
        *sources, _ = shlex.split(line)
        for source in sources:
            assert (ROOT / source).exists(), source
    for stage in DOCKERFILE.split("\nFROM ")[1:]:
        assert re.findall(r"^USER (\w+)$", stage, flags=re.M)[-1] == "tacit"


def test_the_image_takes_the_torch_that_the_tests_use():
    tested = re.search(r"^TORCH=(.+)$", (ROOT / "script" / "environment").read_text(), flags=re.M)
    assert tested
    assert f"torch=={tested[1]} " in DOCKERFILE
