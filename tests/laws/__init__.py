"""Fits against simulated truth and published fits; tables of strangers."""
