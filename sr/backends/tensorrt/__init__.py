"""TensorRT and TensorRT-RTX: GPUs, the store of engines, and the runtime. `deploy.engines` builds engines."""
