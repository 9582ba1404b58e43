"""segloc-synth: labelled and benign scans in, WebDataset shards of image pairs out."""
