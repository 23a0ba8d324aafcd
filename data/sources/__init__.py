"""Where text comes from: one file a kind; registry.py has their names."""
