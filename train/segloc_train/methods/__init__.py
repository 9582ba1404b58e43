"""Pretraining methods, one file each; none knows the training loop."""
