"""Programs with a token, whose every answer is held against the OpenAPI document."""

from tests.kb.api.conftest import as_alice, as_bob, as_charlie

__all__ = ["as_alice", "as_bob", "as_charlie"]
