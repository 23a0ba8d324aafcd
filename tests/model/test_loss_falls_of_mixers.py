"""Thirty updates of every mixer other than attention: the loss falls."""

from tests.model.test_loss_falls import falls
from tests.model.test_model import falling_mixers


@falling_mixers
def test_loss_falls(c):
    falls(c)
