"""The project on a GPU: is it right there, and how fast? `python -m benchmarks.gpu --minutes 8 --output DIR`.

Parts, each in a process and within a time of its own (`PARTS`), write rows to DIR/rows.jsonl as they go; results.json
and summary.md are written anew after each part. `--dry` runs all code on a CPU with tiny sizes.
"""

PARTS = {
    "ceilings": 20,
    "correctness": 35,
    "training": 130,
    "learning": 65,
    "bank": 30,
    "sampling": 65,
    "tests": 25,
    "eager": 40,
}
"""Name of each part, in order of worth, and its share of the time; what a part leaves over goes to those after it."""
