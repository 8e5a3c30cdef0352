"""Sweeps: optimizers x problems x tuning budgets x schedules x seeds, many trials trained at once in one program.

`spec` says what is tried, `optimizers`, `schedules` and `problems` what with, `lanes` trains, `tuning` decides which
trials there are, `ledger` keeps them, `runner` shares them out. docs/sweeps.md explains.
"""
