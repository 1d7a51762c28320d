"""Every figure and table of the book, drawn from tables and arrays only."""

from .benchmark import METHOD_NAMES, trade_off
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
from .conversion_energy import layer_rates, ratio_over_time, traffic_bars
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
from .speed import CONTENDER_LABELS, speed_bars, speed_over_steps, speed_roofline
from .style import COLOURS, MARKERS, figure
from .tables import table
from .two_stage import (
    METHOD_LABELS,
    accuracy_over_time,
    framework,
    layer_errors,
    residual_layers,
    rounding_drift,
    thresholds,
)

__all__ = [
    "COLOURS",
    "CONTENDER_LABELS",
    "MARKERS",
    "METHOD_LABELS",
    "METHOD_NAMES",
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
    "layer_errors",
    "layer_rates",
    "learning_curves",
    "mac_and_ac",
    "neuron_traces",
    "operation_counts",
    "potential_error",
    "rate_codes",
    "rate_gradients",
    "ratio_over_time",
    "residual_layers",
    "residual_plane",
    "residual_ratios",
    "rounding_bias",
    "rounding_drift",
    "speed_bars",
    "speed_over_steps",
    "speed_roofline",
    "spike_orders",
    "surrogate_slopes",
    "table",
    "threshold_methods",
    "threshold_tradeoff",
    "thresholds",
    "trade_off",
    "traffic_bars",
]
