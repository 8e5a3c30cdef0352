"""`python -m timetrial` is the command `timetrial`."""

import sys

from timetrial.cli import main

sys.exit(main())
