"""In: labelled data of any layout. Out: the scans to learn from and to score on, and all that is wrong."""
