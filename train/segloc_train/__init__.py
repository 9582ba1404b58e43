"""segloc-train: shards of image pairs in, a contrastively pretrained detector backbone out."""
