"""Networks of other people's architectures with random weights, as small as they come."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Importing it first lets spandrel be imported where torchvision does not fit.
from sr.network.foreign.torchnet import import_spandrel

# Architecture: class, its settings. The smallest that its own code accepts and that its detector recognises.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ESRGAN": ("ESRGAN", {"num_filters": 16, "num_blocks": 2, "scale": 2}),
    "Compact": ("Compact", {"num_feat": 16, "num_conv": 3, "upscale": 4}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 16, "upscale": 2}),
    "RealPLKSR": ("RealPLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "PLKSR": ("PLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "OmniSR": ("OmniSR", {"num_feat": 16, "up_scale": 2}),
    "SwinIR": (
        "SwinIR",
        {
            "embed_dim": 12,
            "depths": [2],
            "num_heads": [2],
            "window_size": 8,
            "upscale": 2,
            "upsampler": "pixelshuffledirect",
        },
    ),
    "HAT": (
        "HAT",
        {
            "embed_dim": 12,
            "depths": (2,),
            "num_heads": (2,),
            "window_size": 8,
            "upscale": 2,
            "upsampler": "pixelshuffle",
            "compress_ratio": 3,
            "squeeze_factor": 6,
        },
    ),
    "DAT": (
        "DAT",
        {"embed_dim": 32, "depth": [2], "num_heads": [2], "split_size": [8, 8], "upscale": 2},
    ),
    "SAFMN": ("SAFMN", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "Real-CUGAN": ("UpCunet2x", {}),
    "FBCNN": ("FBCNN", {"nc": [8, 16, 24, 512], "nb": 2}),
}
_MODULES = {
    "ESRGAN": ("ESRGAN", "RRDBNet"),
    "Compact": ("Compact", "SRVGGNetCompact"),
    "RealPLKSR": ("PLKSR", "RealPLKSR"),
    "UpCunet2x": ("RealCUGAN", "UpCunet2x"),
}


def network(architecture: str, **changes: Any) -> nn.Module:
    """Return a network with random weights; `changes` replace settings."""
    import_spandrel()
    name, settings = SETTINGS[architecture]
    package, klass = _MODULES.get(name, (name, name))
    module = __import__(f"spandrel.architectures.{package}", fromlist=["x"])
    torch.manual_seed(0)
    build: Callable[..., nn.Module] = getattr(module, klass, None) or _found(module, klass)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about old code in architectures
        return build(**{**settings, **changes}).eval()


def _found(package: Any, klass: str) -> Any:
    import pkgutil
    from importlib import import_module

    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if hasattr(found := import_module(info.name), klass):
            return getattr(found, klass)
    raise LookupError(klass)


def write_weights(path: Path, architecture: str, **changes: Any) -> Path:
    """Write random weights as a program that trains would; return the path."""
    state = network(architecture, **changes).state_dict()
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    else:
        torch.save({"params_ema": state}, path)
    return path
