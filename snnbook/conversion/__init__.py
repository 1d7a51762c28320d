"""ANN → SNN conversion: batch norm folded, each activation replaced by IF neurons with a threshold and a potential."""

from ..fold import fold_batchnorm, replace
from .layerwise import walk
from .limits import infinite_time, mean_outputs
from .lwc import PHASE_TWO, Triangle, calibrate, phase_two
from .methods import METHODS, Method, Report, Setting, convert
from .rewrite import activations, each_output
from .sources import clipped, quantised
from .thresholds import largest, spiking, top_activations, trained_thresholds

__all__ = [
    "METHODS",
    "PHASE_TWO",
    "Method",
    "Report",
    "Setting",
    "Triangle",
    "activations",
    "calibrate",
    "clipped",
    "convert",
    "each_output",
    "fold_batchnorm",
    "infinite_time",
    "largest",
    "mean_outputs",
    "phase_two",
    "quantised",
    "replace",
    "spiking",
    "top_activations",
    "trained_thresholds",
    "walk",
]
