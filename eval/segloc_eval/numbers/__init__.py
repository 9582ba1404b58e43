"""Scores, intervals and errors: pure functions of COCO data sets and results."""
