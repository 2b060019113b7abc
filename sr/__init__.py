"""Super-resolution, deployed: upscale pictures with the networks that ship in this package.

The version number lives here and nowhere else.
"""

__version__ = "0.1.0"
