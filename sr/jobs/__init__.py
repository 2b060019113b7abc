"""Many files: finding pictures, upscaling each, running over all, and the record of finished outputs."""
