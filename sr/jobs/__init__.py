"""Many files: what becomes of which, in what order, and what is done already."""
