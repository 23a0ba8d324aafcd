"""What a mixer keeps of a sequence while it decodes."""

from typing import NamedTuple


class State(NamedTuple):
    """Numbers that one layer keeps: of every token (a cache), and of a sequence whatever its
    length (a recurrent state).
    """

    per_token: int = 0
    per_sequence: int = 0
