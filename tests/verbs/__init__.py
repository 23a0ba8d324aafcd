"""Commands as a user types them, recipes end to end, reports."""
