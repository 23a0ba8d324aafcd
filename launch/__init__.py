"""Where a run happens: devices, checkpoints, records, processes."""
