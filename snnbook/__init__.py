"""snnbook: small and fast deep spiking neural networks, as an executable book and the package under it."""

__version__ = "0.1.0"
