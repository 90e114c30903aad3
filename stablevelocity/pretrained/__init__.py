"""Large pretrained flow models under StableVS, and tiny ones of the same classes trained here."""
