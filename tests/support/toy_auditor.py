"""The process that evaluates parameters again, for an audit whose only workload is the toy."""

import sys

from toys import toy_workload

from timetrial.audit.recompute import main

sys.exit(main(lambda name: (toy_workload(name=name), "f" * 64, [])))
