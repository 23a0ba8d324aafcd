"""As test_greedy_text.py, of families with states and attention in turns."""

import pytest

from tests.launch.test_greedy_text import lanes, twelve_tokens
from tests.launch.transformers_models import HYBRIDS

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


@pytest.mark.parametrize("name", lanes(HYBRIDS))
def test_twelve_tokens(name, tmp_path):
    twelve_tokens(name, tmp_path)
