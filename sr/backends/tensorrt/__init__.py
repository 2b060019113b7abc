"""TensorRT and TensorRT-RTX: GPUs, engines and the runtime."""
