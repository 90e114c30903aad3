"""The verbs of the command line, a module per stage; `stablevelocity.cli` puts them together."""
