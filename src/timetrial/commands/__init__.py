"""The verbs of the command line, one module each: `add_arguments(parser)`, and `run(args) -> int` the exit code.

`cli.VERBS` lists them. What they share is in `output`.
"""
