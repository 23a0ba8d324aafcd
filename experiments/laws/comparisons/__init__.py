"""Arms of one sweep against each other, and losses against a known floor."""
