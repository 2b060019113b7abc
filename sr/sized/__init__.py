"""Upscaling with more than one network: any size (`SizedUpscaler`), or models in turn (`ChainedUpscaler`).

`Upscaling` says which pictures are made, before anything is opened.
"""

from sr.sized.chained import ChainedUpscaler, UpscalerSettings, opened
from sr.sized.upscaler import SizedUpscaler
from sr.sized.upscaling import Upscaling

__all__ = ["ChainedUpscaler", "SizedUpscaler", "UpscalerSettings", "Upscaling", "opened"]
