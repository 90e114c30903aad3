"""Bad inputs in tables: each must end in one line before any work starts. See `run.py`."""
