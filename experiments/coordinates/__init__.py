"""The coordinate check: whether activations keep their sizes over widths or depths, as they start
and as they move.
"""
