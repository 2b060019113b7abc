"""Training data: pair lists, pictures and the patches of a run."""
