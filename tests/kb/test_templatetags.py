"""What templates say of numbers."""

import pytest

from kb.templatetags.tacit import file_size


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (1, "1 KB"),
        (99_999, "100 KB"),
        (1_250_000, "1.2 MB"),
        (640e6, "640 MB"),
        (14.3e9, "14.3 GB"),
    ],
)
def test_a_size_is_said_in_the_unit_that_fits(size_bytes: int, said: str) -> None:
    assert file_size(size_bytes) == said
