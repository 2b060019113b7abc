"""How far the output of a backend may differ from the fp32 network; `deploy.verify` measures it."""

from __future__ import annotations

from dataclasses import dataclass

# PSNR in dB that the uint8 output of a precision must have against that of fp32.
# fp32: kernels that sum in another order turn the rounding of few values: 1.5 in a thousand are 80 dB.
# fp16: half arithmetic on the CPU gives 63.7 dB or more on crops of the photographs in examples/, 60.9
# on noise. The 65 dB that benchmarks/fp16.py asks for are before rounding to levels, and leave 57.6 after.
# bf16 and int8: OpenVINO gives 51.4 and 38.2 dB on the worst picture of Set14, and loses 0.03 dB of the
# truth; much less is a fault.
MIN_PSNR_DB = {"fp32": 80.0, "fp16": 60.0, "bf16": 45.0, "int8": 35.0}


@dataclass(frozen=True)
class Parity:
    """How the output of a backend differs from that of a reference, on one chart.

    Attributes:
        against: the reference, in words.
        psnr_db: of the uint8 outputs; None if they are equal.
        max_levels: largest difference of a value, in levels of 255.
        share: of values that differ at all, in [0, 1].
    """

    against: str
    psnr_db: float | None
    max_levels: int
    share: float

    def __str__(self) -> str:
        if self.psnr_db is None:
            return f"equal to {self.against}"
        most = f"{self.max_levels} level{'s' * (self.max_levels != 1)}"
        return f"{self.psnr_db:.1f} dB from {self.against}, off by {most} at most"

    def passes(self, precision: str) -> bool:
        """Say whether this is close enough for a precision."""
        return self.psnr_db is None or self.psnr_db >= MIN_PSNR_DB[precision]
