"""In: a path. Out: its layout and splits, each of which loads as a COCO data set, as its files have it, unchecked."""
