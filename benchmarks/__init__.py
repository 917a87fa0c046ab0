"""What claims speed is measured: `python -m benchmarks` prints each budget beside what it measured."""
