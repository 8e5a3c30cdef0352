"""Running a submission that nobody trusts: `policy` is what it may do, `child` is the process that it is in.

A pure submission is traced there and handed over as programs (`exporting`), which are inspected (`inspection`) and run
by the harness (`exported`). Any other is trained there (`remote`), and told what to do over a pipe (`wire`).
"""
