"""Data sets behind one call.

>>> from snnbook.data import load
>>> data = load("digits")
>>> data.shape, data.n_classes
((1, 16, 16), 10)

`datasets()` lists what there is; `load` returns `Data` with train, calibration, validation and test `Split`s
that share no sample and no group (track, recording).
"""

from . import audio_sets, digits, event_sets, images, npz, sounds
from .core import Data, Split
from .errors import DamagedFile, MissingData
from .registry import data_folder, datasets, load

__all__ = [
    "DamagedFile",
    "Data",
    "MissingData",
    "Split",
    "audio_sets",
    "data_folder",
    "datasets",
    "digits",
    "event_sets",
    "images",
    "load",
    "npz",
    "sounds",
]
