"""The sections of the report, a file each: what it says, its figure, and the data under it."""
