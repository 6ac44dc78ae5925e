"""How well densities are learned: `python -m benchmarks.density tails|market`."""
