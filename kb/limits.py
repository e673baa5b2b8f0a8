"""How often a person may do a thing: counted in Redis, and stricter in memory when Redis is away."""

import hashlib
import threading
import time
from collections import defaultdict

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from redis.exceptions import RedisError

WINDOW_S = 60
# Each process counts for itself while Redis is away, so each allows only this part of the limit.
SHARE_WITHOUT_REDIS = 0.25

_counts: dict[str, int] = defaultdict(int)
_counts_window = 0
_lock = threading.Lock()


def allow(name: str, key: str) -> bool:
    """Count one use of `settings.RATE_LIMITS[name]` by `key`; False when it is one too many.

    The limit holds for any 60 seconds: uses of the minute before count by the part of it that
    the last 60 seconds still touch.
    """
    limit: int = settings.RATE_LIMITS[name]
    window, passed_s = divmod(time.time(), WINDOW_S)
    hashed = hashlib.sha256(f"{name}:{key}".encode()).hexdigest()[:32]
    try:
        used = _count_in_redis(hashed, int(window), passed_s / WINDOW_S)
    except RedisError:
        used = _count_in_memory(hashed, int(window))
        limit = max(1, int(limit * SHARE_WITHOUT_REDIS))
    return used <= limit


def client_address(request: HttpRequest) -> str:
    """Give the address a request came from; behind a trusted proxy, the one the proxy saw."""
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.TRUST_PROXY else ""
    # A client can send the header too; only the last entry was written by our own proxy.
    nearest: str = forwarded.rpartition(",")[2].strip() or request.META.get("REMOTE_ADDR", "")
    return nearest


def _count_in_redis(hashed: str, window: int, share_passed: float) -> float:
    current = f"limit:{hashed}:{window}"
    # The name holds the window, so it outlives its use and never expires between add and incr.
    cache.add(current, 0, timeout=2 * WINDOW_S)
    used: int = cache.incr(current)
    before: int = cache.get(f"limit:{hashed}:{window - 1}", 0)
    return used + before * (1 - share_passed)


def _count_in_memory(hashed: str, window: int) -> int:
    global _counts_window
    with _lock:
        if window != _counts_window:
            _counts.clear()
            _counts_window = window
        _counts[hashed] += 1
        return _counts[hashed]
