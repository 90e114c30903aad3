"""Stable Velocity, reproduced."""
