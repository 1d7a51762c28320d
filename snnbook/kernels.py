"""The loops over time of IF and LIF neurons, as pure functions that a compiler can fuse."""
