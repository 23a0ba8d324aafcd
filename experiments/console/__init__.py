"""What the commands stand on: a terminal of any kind, and modules imported on use."""
