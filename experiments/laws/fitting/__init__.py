"""Points to a law: forms, the optimiser, error bars, verdicts. Knows no records."""
