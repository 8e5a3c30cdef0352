"""Metrics that more than one workload needs, each from arrays or texts to numbers."""
