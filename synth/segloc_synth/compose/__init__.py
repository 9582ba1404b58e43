"""In: a config, the bank and an index. Out: the sample of that index, two composites and what was drawn."""
