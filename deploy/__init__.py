"""Deployment: folding, ONNX export, parity."""
