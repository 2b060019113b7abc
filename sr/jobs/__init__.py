"""Many files: which are pictures, how each is upscaled, how a run over them goes, and what is done."""
