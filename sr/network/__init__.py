"""The network, its weights and its files."""
