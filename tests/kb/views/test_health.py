from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from kb.models import Job


def test_health_asks_no_service(
    client: Client, db: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        assert client.get("/healthz").status_code == 200


def test_a_working_install_is_ready_and_tells_how_long_work_waits(client: Client, db: None) -> None:
    Job.objects.create(kind="ingest", not_before=timezone.now() - timedelta(minutes=2))

    response = client.get("/readyz")
    assert response.status_code == 200
    body = response.json()
    assert body["ready"] is True
    assert 110 < body["oldest_waiting_s"] < 200


def test_an_install_without_redis_is_not_ready(
    client: Client, db: None, settings: Settings
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["redis"] == "unreachable"


def test_an_install_with_a_migration_missing_is_not_ready(client: Client, db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'kb'")

    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["database"] == "migrations missing"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_not_cached(client: Client, db: None, path: str) -> None:
    assert "no-store" in client.get(path)["Cache-Control"]
