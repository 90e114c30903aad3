"""A study: its settings, read and checked as one. No torch is imported here: Snakemake reads it at every start."""

from stablevelocity.study.load import load_study, parse_study
from stablevelocity.study.reading import read_yaml
from stablevelocity.study.study import Run, Study, study_json, study_schema

__all__ = ["Run", "Study", "load_study", "parse_study", "read_yaml", "study_json", "study_schema"]
