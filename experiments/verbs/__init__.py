"""The programs behind `isoflop VERB`; each also runs as `python -m experiments.verbs.VERB`."""
