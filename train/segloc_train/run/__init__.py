"""In: a config. Out: a run folder, trained, observed, resumable and exported."""
