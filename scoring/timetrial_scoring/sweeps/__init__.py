"""What a sweep shows: reads its compact results (docs/sweeps.md), computes its numbers, draws its figures."""
