"""Published peaks of GPUs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """Peaks of a device.

    Attributes:
        name: as its driver reports it, or the part that identifies it.
        fp32_tflops: of the shaders, without TF32; for a processor, a measured matrix product.
        fp16_tflops: of the tensor cores, dense, accumulating in fp16 where that is faster; None if the
            device computes fp16 no faster than fp32.
        memory_gb_per_s: of its own memory.
        bus_gb_per_s: of PCI Express, each way; None if pictures do not cross it.
        source: of the peaks.
    """

    name: str
    fp32_tflops: float
    fp16_tflops: float | None
    memory_gb_per_s: float
    bus_gb_per_s: float | None
    source: str

    def flops(self, precision: str) -> float:
        """Return the peak in floating-point operations a second; a multiply-add is two."""
        half = precision == "fp16" and self.fp16_tflops is not None
        return 1e12 * (self.fp16_tflops if half and self.fp16_tflops else self.fp32_tflops)


# PCI Express x16 after its line code: 3.0 15.75, 4.0 31.5, 5.0 63.0 GB/s each way.
_PCIE3, _PCIE4, _PCIE5 = 15.75, 31.5, 63.0

GPUS = (
    Device("T4", 8.1, 65.0, 320.0, _PCIE3, "NVIDIA T4 datasheet"),
    Device(
        "RTX 3060",
        12.7,
        51.0,
        360.0,
        _PCIE4,
        "GeForce RTX 3060 12 GB: 101 tensor TFLOPS with sparsity, halved",
    ),
    Device("RTX 4090", 82.6, 330.3, 1008.0, _PCIE4, "NVIDIA Ada GPU architecture white paper, appendix A"),
    Device("A100", 19.5, 312.0, 2039.0, _PCIE4, "NVIDIA A100 datasheet, 80 GB SXM"),
    Device("H100", 67.0, 989.4, 3350.0, _PCIE5, "NVIDIA H100 datasheet, SXM, sparse figures halved"),
    Device("L4", 30.3, 121.0, 300.0, _PCIE4, "NVIDIA L4 datasheet, sparse figures halved"),
)
