"""Decoding from a state of fixed size equals the whole forward pass."""

from tests.model.test_cache import cached_equals_full
from tests.model.test_model import most_mixers


@most_mixers
def test_cached_equals_full(c):
    cached_equals_full(c)
