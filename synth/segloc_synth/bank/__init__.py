"""In: labelled and benign sources. Out: segments cut and scans made ready, kept in the user's cache."""
