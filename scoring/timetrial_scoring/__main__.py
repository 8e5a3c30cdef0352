"""`python -m timetrial_scoring DIR`"""

import sys

from timetrial_scoring.cli import main

sys.exit(main())
