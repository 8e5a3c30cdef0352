"""`python -m timetrial_scoring.report DIR`"""

import sys

from timetrial_scoring.report.command import main

sys.exit(main())
