"""Rate limits: counted in Redis for all processes, and not lost when Redis is."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import cache
from django.test import RequestFactory
from pytest_django import Settings

from kb import limits


@pytest.fixture(autouse=True)
def fresh_counters(settings: Settings) -> None:
    settings.RATE_LIMITS = {"login": 8}
    cache.clear()
    limits._counts.clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_700_000_040.0]  # the start of a minute
    monkeypatch.setattr(limits.time, "time", lambda: now[0])
    return now


@pytest.fixture
def no_redis(settings: Settings) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",
        }
    }


def uses_allowed(key: str, attempts: int = 20) -> int:
    return sum(limits.allow("login", key) for _ in range(attempts))


def test_as_many_uses_as_the_limit_are_allowed(clock: list[float]) -> None:
    assert uses_allowed("user:alice") == 8


def test_one_key_does_not_use_up_anothers(clock: list[float]) -> None:
    uses_allowed("user:alice")

    assert limits.allow("login", "user:bob")


def test_the_limit_holds_over_the_end_of_a_minute(clock: list[float]) -> None:
    clock[0] += 59
    assert uses_allowed("user:alice", attempts=8) == 8
    clock[0] += 2

    assert uses_allowed("user:alice") == 0


def test_after_two_minutes_all_is_forgotten(clock: list[float]) -> None:
    uses_allowed("user:alice")
    clock[0] += 120

    assert uses_allowed("user:alice") == 8


def test_many_at_once_get_no_more_than_the_limit(clock: list[float]) -> None:
    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(lambda _: limits.allow("login", "ip:10.0.0.1"), range(64)))

    assert sum(allowed) == 8


@pytest.mark.usefixtures("no_redis")
def test_without_redis_a_stricter_limit_holds(clock: list[float]) -> None:
    assert uses_allowed("user:alice") == 2
    clock[0] += 60
    assert uses_allowed("user:alice") == 2


def test_a_key_may_hold_any_character(clock: list[float]) -> None:
    assert limits.allow("login", "user:  Zoë\n" + "x" * 500)


def test_a_forwarded_address_counts_only_behind_a_trusted_proxy(settings: Settings) -> None:
    request = RequestFactory().get("/", headers={"X-Forwarded-For": "6.6.6.6, 10.1.2.3"})

    settings.TRUST_PROXY = False
    assert limits.client_address(request) == "127.0.0.1"
    settings.TRUST_PROXY = True
    assert limits.client_address(request) == "10.1.2.3"
