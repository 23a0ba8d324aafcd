"""What the laws refuse."""


class FitError(ValueError):
    """Points that cannot be fitted; the message says why."""
