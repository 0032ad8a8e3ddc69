"""Training: one run trains one model by a recipe, over any number of workers, and survives their deaths."""
