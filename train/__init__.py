"""Training: pair lists, losses, the loop, evaluation."""
