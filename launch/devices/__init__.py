"""What a run trains on: devices, meshes, layouts, compiled programs, processes."""
