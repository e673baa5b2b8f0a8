import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kb.embedders.hashing import HashingEmbedder

ROOT = Path(__file__).resolve().parents[3]


def test_texts_that_share_words_are_near_each_other():
    one, near, far = HashingEmbedder().embed_passages(
        ["The glacier melts in late summer.", "Glaciers melt in summer", "Pay the invoice by May"]
    )

    assert one @ near > 0.4 > 0.25 > abs(one @ far)


def test_vectors_have_unit_length_whatever_the_text():
    vectors = HashingEmbedder(64).embed_passages(["", "…", "word", "東京", "a " * 100])

    assert vectors.shape == (5, 64)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_another_process_gives_the_same_vector():
    code = "from kb.embedders.hashing import HashingEmbedder as H; print(list(H(8).embed_query('so it is')))"
    runs = {
        subprocess.check_output(
            [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    }

    assert len(runs) == 1


def test_a_text_over_the_limit_is_refused_by_its_index():
    with pytest.raises(ValueError, match="Text 1 has 302 tokens"):
        HashingEmbedder().embed_passages(["short", "word " * 300])


def test_no_texts_give_no_vectors():
    assert HashingEmbedder(16).embed_passages([]).shape == (0, 16)
