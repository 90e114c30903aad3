"""GenEval and T2V-CompBench."""
