"""What is timed. Contenders alternate, and CPU-seconds stand beside wall time."""
