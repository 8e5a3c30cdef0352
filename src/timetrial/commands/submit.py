"""`timetrial submit`: the official rehearsal, and the bundle to hand in."""

from timetrial.commands.validate import add_submit_arguments as add_arguments
from timetrial.commands.validate import run_submit as run

__all__ = ["add_arguments", "run"]
