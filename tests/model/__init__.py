"""Models, counts and memory, against outside witnesses."""
