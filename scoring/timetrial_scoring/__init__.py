"""Scoring of timetrial runs: records in, verdicts with their uncertainty out. Never imports jax."""
