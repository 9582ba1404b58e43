"""In: composites and real scans. Out: how well a classifier tells them apart, and by what."""
