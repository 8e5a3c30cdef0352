"""The child of an isolated trial whose only workload is the toy."""

import sys

from toys import toy_workload

from timetrial.isolation.child import main

sys.exit(main(lambda name: toy_workload(name=name)))
