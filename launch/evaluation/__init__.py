"""Finished models on text that all of them read: released ones and runs of one's own."""
