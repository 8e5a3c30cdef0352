"""The official rehearsal of a submission, and the bundle in which it is handed in."""
