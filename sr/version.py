"""The version of srup, which setup.cfg, the command line and every file that records it read from here."""

__version__ = "0.2.0"
