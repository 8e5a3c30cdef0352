"""AlgoPerf's submission API: runs a JAX submission written for MLCommons AlgoPerf as it is (docs/algoperf.md).

`names` makes the imports of such a submission resolve, `search_space` reads its tuning_search_space.json, `view` shows
it one of our workloads as AlgoPerf's, and `trainer` calls its functions. `spec` and `jax_sharding_utils` are what it
imports under AlgoPerf's names.
"""
