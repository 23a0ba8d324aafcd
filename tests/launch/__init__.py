"""Runs on devices, meshes, engines and clusters; stopped, killed and resumed."""
