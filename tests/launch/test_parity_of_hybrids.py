"""As test_parity_of_states.py, of families with states and attention in turns."""

import pytest

from tests.launch.test_parity_of_states import equal_logits, equal_out_again, made
from tests.launch.transformers_models import HYBRIDS

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


@pytest.fixture(scope="module", params=HYBRIDS)
def pair(request, tmp_path_factory):
    return made(request.param, tmp_path_factory)


def test_logits(pair):
    equal_logits(pair)


def test_out_again(pair, tmp_path):
    equal_out_again(pair, tmp_path)
