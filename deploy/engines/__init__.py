"""Building TensorRT and TensorRT-RTX engines, and proving that they compute what the network does."""
