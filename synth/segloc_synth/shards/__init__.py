"""In: samples. Out: tar shards, their sidecars and manifest, and readers of them: the format's only owner."""
