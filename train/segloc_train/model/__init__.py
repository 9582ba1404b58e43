"""In: an architecture and initial weights. Out: SDANet, its RoI head, the momentum pair, and their files."""
