"""The command line, `stablevelocity <verb>`."""
