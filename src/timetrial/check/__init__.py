"""Is this submission valid? `conformance` runs it for two steps on every workload. `pace` times plain steps."""
