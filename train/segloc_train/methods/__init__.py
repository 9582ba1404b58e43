"""In: a batch of pairs. Out: losses, and all that a method learns: one file each; none knows the training loop."""
