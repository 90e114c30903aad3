"""The verbs, a module per stage."""
