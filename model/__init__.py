"""Models: arrays in, arrays out. No files, no flags, no devices."""
