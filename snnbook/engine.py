"""A network made ready for fast inference: batch norm folded, channels last, and spikes as small as they are.

In ``fp32`` the weights stay as they are. In ``bf16`` and ``int8`` every spike gets height one, its height θ goes into
the weights of the next connection (W·θ and spikes of one give the same drive as W and spikes of θ), average pools
become sums, and weights are rounded: to bfloat16, or to 8-bit integers with one scale for each output channel. A spike
is exact in either. Sums and membrane potentials stay in float32 (a drive rounded to bfloat16 moves spikes), and so do
the first layer, which sees analogue values, and the last one. v(T) is not kept.
"""

from __future__ import annotations

import torch
from spikingjelly.activation_based import surrogate
from torch import Tensor, nn

from .checks import check, check_choice
from .fold import fold_batchnorm, replace
from .network import Network, Residual
from .neurons import is_spiking, spiking_layers
from .record import observe

#: Precision → type in which spikes of height one travel; ``None`` leaves spikes and weights as they are.
PRECISIONS = {"fp32": None, "bf16": torch.float32, "int8": torch.uint8}

_KNOWN = (Network, Residual, nn.Sequential, nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten,
          nn.Dropout, nn.Identity, surrogate.SurrogateFunctionBase)  # fmt: skip


class SpikePool(nn.Module):
    """Sum of the spikes in each window of k × k, without overlap; the average times k², and exact in few bits."""

    def __init__(self, k: int):
        super().__init__()
        self.k = k

    def forward(self, s: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H/k, W/k] in the same type; rows and columns beyond a multiple of k are left out."""
        k, h, w = self.k, s.shape[2] // self.k * self.k, s.shape[3] // self.k * self.k
        parts = [s[:, :, i:h:k, j:w:k] for i in range(k) for j in range(k)]
        total = parts[0] + parts[1] if len(parts) > 1 else parts[0].clone()
        for part in parts[2:]:
            total += part
        return total


class SpikeMean(nn.AdaptiveAvgPool2d):
    """Average of the spikes in windows that make a given size, times ``factor``, in float32."""

    def __init__(self, size: int, factor: float):
        super().__init__(size)
        self.factor = factor

    def forward(self, s: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H', W']."""
        return super().forward(s.float()) * self.factor


class Height(nn.Module):
    """Spikes of height one to analogue values of height ``unit``, float32."""

    def __init__(self, unit: float):
        super().__init__()
        self.unit = unit

    def forward(self, s: Tensor) -> Tensor:
        """Any shape."""
        return s.float() * self.unit


class SpikeLinear(nn.Module):
    """A linear layer on spikes of height one, in float32."""

    def __init__(self, layer: nn.Linear, unit: float):
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach() * unit, requires_grad=False)
        self.bias = layer.bias

    def forward(self, s: Tensor) -> Tensor:
        """[N, F] to [N, F']."""
        return nn.functional.linear(s.float(), self.weight, self.bias)


def quantise_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit weights and their scales: W ≈ scale·W₈, symmetric, one scale for each output channel.

    Args:
        weight: [C', ...].

    Returns:
        int8 [C', ...] in −127 … 127 and float32 scales [C'].
    """
    scale = weight.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8), scale


class Int8Conv(nn.Module):
    """A convolution of 1-byte spikes with 8-bit weights; sums in 32-bit integers, drive in float32."""

    def __init__(self, layer: nn.Conv2d, unit: float):
        super().__init__()
        weight, self.scale = quantise_weights(layer.weight.detach() * unit)
        self.where = [list(pair) for pair in (layer.stride, layer.padding, layer.dilation)] + [layer.groups]
        self.weight = torch.ops.onednn.qconv_prepack(weight, self.scale, 1.0, 0, *self.where, None)
        self.zero = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = None if layer.bias is None else layer.bias.detach().float()

    def forward(self, s: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to float32 [N, C', H', W']."""
        weight, out = (self.weight, self.scale, self.zero, self.bias), (1.0, 0, torch.float32, "none", [], "")
        return torch.ops.onednn.qconv2d_pointwise(s, 1.0, 0, *weight, *self.where, *out)


class Bf16Conv(nn.Conv2d):
    """A convolution of spikes with weights rounded to bfloat16; products in bfloat16 are exact, sums are in float32.

    Weights and spikes are stored in float32: oneDNN multiplies them as bfloat16 where the processor can, and the result
    is the same where it cannot. (A convolution of bfloat16 tensors would round its output too.)
    """

    def __init__(self, layer: nn.Conv2d, unit: float):
        where = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
        super().__init__(layer.in_channels, layer.out_channels, layer.kernel_size, bias=layer.bias is not None, **where)
        with torch.no_grad():
            self.weight.copy_((layer.weight * unit).bfloat16())
            if layer.bias is not None:
                self.bias.copy_(layer.bias)
        self.to(layer.weight.device, memory_format=torch.channels_last)

    def forward(self, s: Tensor) -> Tensor:
        """float32 [N, C, H, W] to float32 [N, C', H', W']."""
        now = torch.backends.mkldnn
        with now.flags(True, now.deterministic, now.allow_tf32, fp32_precision="bf16"):
            return super().forward(s)


def _units(net: Network, example: Tensor, precision: str) -> dict[str, float]:
    """Height of one spike at the input of every connection, pool and residual addition that sees spikes.

    For an adaptive pool, what the mean of spikes of height one has to be multiplied by: its area, to give their sum, or
    the height itself where windows differ in size and its output is analogue.

    Raises:
        ValueError: in int8, for pools behind each other that add up more spikes than a byte holds.
    """
    units: dict[str, float] = {}
    area = 1

    def neuron(name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        nonlocal area
        area = 1

    def note(name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        nonlocal area
        unit = getattr(x, "spike_unit", None)
        if isinstance(module, nn.AvgPool2d):
            area *= module.kernel_size**2
            fits = precision != "int8" or area <= 255
            check(name, module, fits, f"pools over at most 255 spikes in int8, not {area}")
        if unit is not None:
            adaptive = isinstance(module, nn.AdaptiveAvgPool2d)
            units[name] = unit / getattr(y, "spike_unit", 1.0) if adaptive else unit

    before, net.time_steps = net.time_steps, 1
    with torch.no_grad(), observe(net, neuron=neuron, connection=note, junction=note):
        net(example[:1])
    net.time_steps = before
    return units


def _small(name: str, module: nn.Module, unit: float, conv: type[nn.Module]) -> dict[str, nn.Module]:
    """What takes the place of ``module``, which sees spikes of height ``unit``; ``conv`` makes its convolutions."""
    if isinstance(module, nn.Conv2d):
        return {name: conv(module, unit)}
    if isinstance(module, nn.Linear):
        return {name: SpikeLinear(module, unit)}
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return {name: SpikeMean(module.output_size, unit)}
    if isinstance(module, nn.AvgPool2d):
        return {name: SpikePool(module.kernel_size)}
    return {f"{name}.shortcut": Height(unit)} if isinstance(module.shortcut, nn.Identity) else {}


def _check_lowering(net: nn.Module, precision: str) -> None:
    for name, module in net.named_modules():
        known = isinstance(module, _KNOWN) or is_spiking(module)
        check(name or "net", type(module).__name__, known, "layers of snnbook.models; prepare others in fp32")
        if isinstance(module, nn.AvgPool2d):
            plain = module.kernel_size == module.stride and module.padding == 0 and isinstance(module.kernel_size, int)
            plain = plain and not module.ceil_mode and module.divisor_override is None
            check(name, module, plain, "an average pool whose windows do not overlap, with no option")
        if isinstance(module, nn.Conv2d):
            check(name, module, module.padding_mode == "zeros", "a convolution that is padded with zeros")
    here = torch.backends.mkldnn.is_available() and next(net.parameters()).device.type == "cpu"
    check("precision", precision, precision != "int8" or here, "fp32 or bf16 (8-bit convolutions need oneDNN on a CPU)")


def prepare(net: Network, example: Tensor, precision: str = "fp32") -> Network:
    """A copy of a trained or converted network for fast inference.

    Args:
        net: ANN or SNN.
        example: input of one forward pass, [N, C, H, W] or [T, N, C, H, W].
        precision: fp32; bf16, for processors that multiply it; or int8 (SNNs only): 8-bit weights and 1-byte spikes.

    Returns:
        The copy in eval mode, channels last. Its neurons do not keep v(T): it cannot run on from a state.

    Raises:
        ValueError: for an unknown precision, or, in bf16 and int8, for an ANN, a layer that is not one of
            ``snnbook.models``, or int8 where oneDNN is not there.
    """
    check_choice("precision", precision, PRECISIONS)
    net = fold_batchnorm(net, example[:1] if example.ndim == 4 else example[:, :1])
    if PRECISIONS[precision] is not None:
        spiking = len(spiking_layers(net)) > 0
        check("net", type(net).__name__, spiking, f"a spiking network ({precision} is about spikes)")
        _check_lowering(net, precision)
        conv = Int8Conv if precision == "int8" else Bf16Conv
        new: dict[str, nn.Module] = {}
        for name, unit in _units(net, example, precision).items():
            new |= _small(name, net.get_submodule(name), unit, conv)
        net = replace(net, new)
        for layer in spiking_layers(net).values():
            layer.emit, layer.spike_dtype = 1.0, PRECISIONS[precision]
    for layer in spiking_layers(net).values():
        layer.keep_v = False
    return net.to(memory_format=torch.channels_last).eval()
