"""In: arms, data and a recipe. Out: an evaluation's folder, unit by unit, and the tables over it."""
