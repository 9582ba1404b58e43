"""In: COCO data sets and results. Out: scores, intervals and errors, by pure functions."""
