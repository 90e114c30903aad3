"""What the method core costs, measured: `python -m benchmarks` prints every table and writes benchmarks/RESULTS.md."""
