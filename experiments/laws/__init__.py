"""Scaling laws: functions of records. Shared conventions: natural logarithms, float64, loss in nats
per token.
"""
