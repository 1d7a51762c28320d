"""SRP and COS: a QCFS network that first runs ρ steps, reads its residual potentials, and then starts again.

SRP: Hao et al., Reducing ANN-SNN conversion error through residual membrane potential, AAAI 2023. The whole network
runs ρ steps from v(0) = θ/2. A neuron with v(ρ) < 0 sent more spikes than QCFS gives for the mean of its drive, or has
nothing to send: it stays silent in the T steps that count.

COS: Hao et al., Bridging the gap between ANNs and SNNs by calibrating offset spikes, ICLR 2023. Layer by layer, each
neuron runs over the first ρ steps of its drive, which comes from layers that are already corrected, and v(0) is moved
by just so much that it would have fired one spike fewer (v(ρ) < 0) or one more (v(ρ) ≥ θ). Then it runs all its steps.

Both look at the image itself, not at calibration images, so the ρ steps belong to the latency of every image. Hooks
on an SRP network see both runs, but for those on its stem, which every image passes once; hooks on a COS network see
only the second.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import check
from ..fold import replace
from ..network import PIECE, Network
from ..neurons import IF, spiking_layers
from .options import is_whole
from .thresholds import spiking, trained_thresholds

#: By how much of θ COS goes past the edge between two spike counts.
MARGIN = 1e-3
#: A potential from which no drive reaches the threshold.
SILENT = -1e30


def _check_steps(steps: object) -> None:
    """ValueError unless ρ is a whole number of steps that one pass holds."""
    check("prerun_steps", steps, is_whole(steps) and 1 <= steps <= PIECE, f"1 to {PIECE}")


class _Prerun(Network):
    """A spiking network that looks at each image for some steps before the T steps that count."""

    def __init__(self, snn: Network, steps: int):
        _check_steps(steps)
        super().__init__(snn.stem, snn.body, snn.head)
        self.steps, self.time_steps = steps, snn.time_steps

    def forward(self, x: Tensor) -> Tensor:
        """Logits [T, N, K] of images [N, C, H, W] or vectors [N, F]; ValueError for events, which come only once."""
        T = self.time_steps
        if T is None:
            return super().forward(x)
        static = "images [N, C, H, W] or vectors [N, F]: a pre-run needs input that can be seen twice"
        check("x", tuple(x.shape), x.ndim < 5, static)
        try:
            return self._twice(x, T)
        finally:
            self.time_steps = T

    def _run_for(self, steps: int, x: Tensor) -> Tensor:
        """Logits [steps, N, K] of one run from the present v(0) and stem."""
        self.time_steps = steps
        return Network.forward(self, x)


class SRP(_Prerun):
    """After ρ steps, neurons with a negative residual potential are silenced for the T steps that follow."""

    @property
    def prerun_steps(self) -> int:
        """Steps before the T that count."""
        return self.steps

    def _twice(self, x: Tensor, T: int) -> Tensor:
        z, stem, layers = self.stem(x), self.stem, spiking_layers(self).values()
        started = [(layer.v_init, layer.keep_v) for layer in layers]
        try:
            self.stem = nn.Identity()  # both runs go on from z
            for layer in layers:
                layer.keep_v = True
            self._run_for(self.steps, z)
            for layer, (_, keep_v) in zip(layers, started, strict=True):
                layer.keep_v = keep_v
                if isinstance(layer.v, Tensor):  # it runs
                    layer.v_init = torch.where(layer.v < 0, SILENT, layer.v_init)
            return self._run_for(T, z)
        finally:
            self.stem = stem
            for layer, (v_init, keep_v) in zip(layers, started, strict=True):
                layer.v_init, layer.keep_v = v_init, keep_v


def offset(x: Tensor, v0: Tensor, theta: float) -> Tensor:
    """By how much COS moves v(0), so that a neuron that fired once too often or too seldom does not.

    Args:
        x: drive [ρ, N, ...].
        v0: v(0), broadcasts to [N, ...].
        theta: threshold.

    Returns:
        [N, ...]: with h(t) the potential before firing, −max(θ, min over spikes of h − θ + ε) where v(ρ) < 0 and
        there is a spike, max(θ, θ − max over silent steps of h + ε) where v(ρ) ≥ θ and there is a silent step, else 0.
    """
    v = v0.expand(x.shape[1:])
    lowest, highest = torch.full_like(v, torch.inf), torch.full_like(v, -torch.inf)
    for drive in x:
        h = v + drive
        fired = h >= theta
        lowest = torch.where(fired, lowest.minimum(h), lowest)
        highest = torch.where(fired, highest, highest.maximum(h))
        v = h - theta * fired
    margin = MARGIN * theta
    down = -(lowest - theta + margin).clamp(min=theta)
    up = (theta - highest + margin).clamp(min=theta)
    once_too_often, once_too_seldom = (v < 0) & lowest.isfinite(), (v >= theta) & highest.isfinite()
    return torch.where(once_too_often, down, torch.where(once_too_seldom, up, 0.0))


class OffsetIF(IF):
    """IF neuron that calibrates its v(0) by :func:`offset` over the first ``steps`` of its own drive."""

    def __init__(self, theta: float, steps: int):
        super().__init__(theta, v_init=theta / 2, emit=theta)
        self.steps = steps

    def extra_repr(self) -> str:
        """As for IF, and the steps of the pre-run."""
        return f"{super().extra_repr()}, steps={self.steps}"

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Drive [T, N, ...] to output θ·s [T, N, ...]; without pre-run where it runs on from an earlier state."""
        if self.carry:
            return super().multi_step_forward(x_seq)
        started = self.v_init
        self.v_init = started + offset(x_seq[: self.steps].detach(), started, self.v_threshold)
        try:
            return super().multi_step_forward(x_seq)
        finally:
            self.v_init = started


class COS(_Prerun):
    """Neurons with calibrated offset spikes, layer by layer.

    A layer listens to ρ corrected steps of the layer before, so all layers run at least ρ steps, whatever T is, and
    layer k sends its first spike after k·ρ steps.
    """

    @property
    def prerun_steps(self) -> int:
        """Updates of a neuron beside the T that count: ρ, and ρ − T more where T is below ρ.

        That is time only where a layer runs all its steps before the next one starts. Step by step, with all layers
        at work, a network of D spiking layers takes D·ρ + T steps for an image.
        """
        return self.steps + max(self.steps - (self.time_steps or 0), 0)

    def _twice(self, x: Tensor, T: int) -> Tensor:
        return self._run_for(max(T, self.steps), x)[:T]


def srp(net: Network, time_steps: int, prerun_steps: int = 4) -> SRP:
    """``net`` with trained thresholds as an :class:`SRP` network; ``prerun_steps`` is ρ."""
    return SRP(spiking(net, trained_thresholds(net), time_steps, 0.5), prerun_steps)


def cos(net: Network, time_steps: int, prerun_steps: int = 4) -> COS:
    """``net`` with trained thresholds as a :class:`COS` network; ``prerun_steps`` is ρ."""
    _check_steps(prerun_steps)
    layers = {name: OffsetIF(theta, prerun_steps) for name, theta in trained_thresholds(net).items()}
    snn = replace(net, layers)
    snn.time_steps = time_steps
    return COS(snn, prerun_steps).eval()
