"""Tables that readers explore in the page or, with a kernel, as widgets: splitting, compression, noise."""

from .compression import compression
from .noise import noise
from .split import recorded, split
from .table import Explorer, Key, Panel, Reference

__all__ = ["Explorer", "Key", "Panel", "Reference", "compression", "noise", "recorded", "split"]
