"""Documents kept apart by the mixers without a window: states, short convolutions, sparse maps."""

import pytest

from tests.model.test_documents import cases, read_by_itself


@pytest.mark.parametrize("c,ex", [*cases(False)])
def test_a_document_is_read_by_itself(c, ex):
    read_by_itself(c, ex)
