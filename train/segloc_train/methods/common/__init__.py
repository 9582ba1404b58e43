"""In: a batch as the loop gives it. Out: what every method builds on, keys, queues and losses."""
