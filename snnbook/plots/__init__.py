"""Every figure and table of the book, drawn from tables and arrays only."""

from .conversion import (
    constant_drive,
    conversion_error,
    count_bars,
    error_over_steps,
    potential_error,
    residual_plane,
    residual_ratios,
    rounding_bias,
    spike_orders,
    threshold_methods,
    threshold_tradeoff,
)
from .energy import (
    break_even,
    energy_bars,
    equation_18,
    fan_out_map,
    mac_and_ac,
    operation_counts,
)
from .neurons import (
    fi_curves,
    learning_curves,
    neuron_traces,
    rate_codes,
    rate_gradients,
    surrogate_slopes,
)
from .style import COLOURS, MARKERS, figure
from .tables import table
from .two_stage import METHOD_LABELS, accuracy_over_time, framework, rounding_drift, thresholds

__all__ = [
    "COLOURS",
    "MARKERS",
    "METHOD_LABELS",
    "accuracy_over_time",
    "break_even",
    "constant_drive",
    "conversion_error",
    "count_bars",
    "energy_bars",
    "equation_18",
    "error_over_steps",
    "fan_out_map",
    "fi_curves",
    "figure",
    "framework",
    "learning_curves",
    "mac_and_ac",
    "neuron_traces",
    "operation_counts",
    "potential_error",
    "rate_codes",
    "rate_gradients",
    "residual_plane",
    "residual_ratios",
    "rounding_bias",
    "rounding_drift",
    "spike_orders",
    "surrogate_slopes",
    "table",
    "threshold_methods",
    "threshold_tradeoff",
    "thresholds",
]
