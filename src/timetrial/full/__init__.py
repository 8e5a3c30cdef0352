"""What the workloads of the full track share: those of AlgoPerf, at published size. Each imports what it needs of it.

Two workloads on one data set (ImageNet, LibriSpeech) have its fields, loss and metrics in common; what tells them
apart, their models, is in their own folders.
"""
