"""In: shards, local or remote. Out: batches of pairs in an order that is a pure function of seed and epoch."""
