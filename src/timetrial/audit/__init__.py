"""`timetrial audit`: are these records what the rules, the source and the workloads of this installation give?

Submission code is never imported here. `reading` finds the trials; `lines`, `grid` and `header` look at one record,
`board` at all of them together; `recompute` is the process that evaluates parameters again, and `compare` says
whether that agrees; `retime` runs trials again; `run` ties them together. docs/audit.md says what is found and what
cannot be.
"""
