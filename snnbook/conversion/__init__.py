"""ANN → SNN conversion: batch norm folded, each activation replaced by IF neurons with a threshold and a potential."""

from ..fold import fold_batchnorm, replace
from .limits import infinite_time, mean_outputs
from .methods import METHODS, Method, Report, Setting, convert
from .rewrite import activations, each_output
from .sources import clipped, quantised
from .thresholds import largest, spiking, top_activations, trained_thresholds

__all__ = [
    "METHODS",
    "Method",
    "Report",
    "Setting",
    "activations",
    "clipped",
    "convert",
    "each_output",
    "fold_batchnorm",
    "infinite_time",
    "largest",
    "mean_outputs",
    "quantised",
    "replace",
    "spiking",
    "top_activations",
    "trained_thresholds",
]
