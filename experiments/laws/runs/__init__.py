"""Evidence: records and CSV files as tables and points, and which of them may be used."""
