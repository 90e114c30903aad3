"""Training runs: randomness, checkpoints, the loop."""
