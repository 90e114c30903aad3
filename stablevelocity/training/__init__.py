"""Training runs: batches, the loop, checkpoints, results."""
