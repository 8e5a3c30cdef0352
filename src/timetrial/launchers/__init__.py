"""How the trials of a campaign are run: on this machine (`local`), or as the tasks of a cluster (`slurm`)."""
