"""Sections of the report: each folder holds the tables, figures, claims and text of one subject."""
