"""In: a random generator. Out: the simulated things, bags and what lies in them, as shapes of material."""
