"""A study: its settings, read and checked as one. No torch is imported here: Snakemake reads it at every start."""

from stablevelocity.study.study import Run, Study, load_study, parse_study, read_yaml, study_json, study_schema

__all__ = ["Run", "Study", "load_study", "parse_study", "read_yaml", "study_json", "study_schema"]
