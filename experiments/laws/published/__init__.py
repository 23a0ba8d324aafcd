"""What others published: constants, their runs, and their fits repeated."""
