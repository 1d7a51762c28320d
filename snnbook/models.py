"""VGG, CifarNet and ResNet descriptions: one module tree, exchangeable activations.

An ANN, a quantised ANN, an IF and a LIF network are the same tree with another activation in the same places.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .checks import check, check_choice
from .network import Network, Residual
from .neurons import IF, LIF
from .quantise import ClippedReLU, QuantClip

#: Activation name → what makes one; every maker takes the options of its class by keyword.
ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "clip": ClippedReLU,
    "qc": QuantClip,
    "qcfs": lambda **options: QuantClip(shift=0.5, **options),
    "if": IF,
    "lif": LIF,
}

#: Convolution widths, P = 2×2 pooling, and the hidden widths of EC-SNN's head (``head="mlp"``).
VGG = {
    "vgg5": ((64, "P", 128, 128, "P"), (1024,)),
    "vgg9": ((64, 64, "P", 128, 128, "P", 256, 256, 256, "P"), (1024,)),
    "vgg16": (
        (64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512, "P"),
        (4096, 4096),
    ),
    "cifarnet": ((256, 256, 256, "P", 256, 256, 256, "P"), (384, 192)),
}

#: Stem width, stage widths, blocks per stage, bottleneck expansion (1 = basic block).
RESNET = {
    "resnet20": (16, (16, 32, 64), (3, 3, 3), 1),
    "resnet20_wide": (64, (64, 128, 256), (3, 3, 3), 1),
    "resnet50": (64, (64, 128, 256, 512), (3, 4, 6, 3), 4),
}


def _conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


def _scaled(channels: int, width: float) -> int:
    return max(4, round(channels * width))


def _vgg(name, activation, n_classes, shape, width, pool, head) -> Network:
    blocks, hidden = VGG[name]
    pool = nn.AvgPool2d if pool == "avg" else nn.MaxPool2d
    c, h, w = shape
    layers: list[nn.Module] = []
    for block in blocks:
        if block != "P":
            layers += _conv(c, c := _scaled(block, width)) + [activation()]
        elif min(h, w) >= 2:
            layers, h, w = layers + [pool(2)], h // 2, w // 2
    widths = {"linear": (), "mlp": [_scaled(n, width) for n in hidden], "fc": [_scaled(4096, width)] * 2}[head]
    top: list[nn.Module] = [nn.Flatten()]
    c = c * h * w
    for n in widths:
        top += [nn.Dropout(0.5), nn.Linear(c, n)] + ([activation()] if head == "fc" else [])
        c = n
    top += ([nn.Dropout(0.5)] if widths else []) + [nn.Linear(c, n_classes)]
    return Network(nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:]), nn.Sequential(*top))


def _block(c_in: int, c: int, stride: int, expansion: int, order: str, activation) -> Residual:
    """Basic block (expansion 1) or bottleneck (4), conv–BN–act order ``post`` or act–conv–BN order ``ms``."""
    sizes = [(c_in, c, 3, stride), (c, c, 3, 1)]
    if expansion > 1:
        sizes = [(c_in, c, 1, 1), (c, c, 3, stride), (c, c * expansion, 1, 1)]
    branch: list[nn.Module] = []
    for i, size in enumerate(sizes):
        conv, last = _conv(*size), i == len(sizes) - 1
        branch += [activation(), *conv] if order == "ms" else conv + ([] if last else [activation()])
    same = stride == 1 and c_in == c * expansion
    shortcut = nn.Identity() if same else nn.Sequential(*_conv(c_in, c * expansion, 1, stride))
    return Residual(nn.Sequential(*branch), shortcut, nn.Identity() if order == "ms" else activation())


def _resnet(name, activation, n_classes, shape, width, order) -> Network:
    stem_width, stages, repeats, expansion = RESNET[name]
    c = _scaled(stem_width, width)
    stem = nn.Sequential(*_conv(shape[0], c))
    body: list[nn.Module] = [] if order == "ms" else [activation()]
    for stage, (stage_width, repeat) in enumerate(zip(stages, repeats, strict=True)):
        planes = _scaled(stage_width, width)
        for i in range(repeat):
            stride = 2 if stage > 0 and i == 0 else 1
            body.append(_block(c, planes, stride, expansion, order, activation))
            c = planes * expansion
    body += [activation()] if order == "ms" else []
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, n_classes))
    return Network(stem, nn.Sequential(*body), head)


def _initialise(net: nn.Module, generator: torch.Generator | None) -> None:
    """He-normal convolutions and linear layers, zero biases, from ``generator``."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            fan = m.weight[0].numel() if isinstance(m, nn.Linear) else m.weight[:, 0].numel()
            with torch.no_grad():
                m.weight.normal_(0, (2 / fan) ** 0.5 if isinstance(m, nn.Conv2d) else fan**-0.5, generator=generator)
                if m.bias is not None:
                    m.bias.zero_()


def build(
    name: str,
    activation: str = "relu",
    *,
    n_classes: int = 10,
    shape: tuple[int, int, int] = (3, 32, 32),
    width: float = 1.0,
    time_steps: int | None = None,
    pool: str = "avg",
    head: str = "linear",
    order: str = "post",
    seed: int = 0,
    **options,
) -> Network:
    """Build a network by name.

    Args:
        name: vgg5, vgg9, vgg16, cifarnet, resnet20, resnet20_wide or resnet50.
        activation: relu, clip (TCL), qc (equation (8)), qcfs, if or lif.
        n_classes: K.
        shape: input (C, H, W) of one frame.
        width: multiplier on every hidden width, at least 4 channels remain.
        time_steps: T for if and lif.
        pool: avg, or max for an ANN twin (VGG only).
        head: VGG only. ``linear``: Flatten → K. ``mlp``: EC-SNN's hidden layers with dropout and no neuron
            between. ``fc``: 4096–4096 with activations and dropout.
        order: ResNet only. ``post``: conv–BN–act, add, act. ``ms``: act–conv–BN, add on membranes (MS-ResNet).
        seed: of the initial weights.
        options: keyword arguments of the activation (levels, tau, v_threshold, ...).

    Raises:
        ValueError: for an unknown name or option, with what is allowed.
    """
    check_choice("name", name, [*VGG, *RESNET])
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("pool", pool, ("avg", "max"))
    check_choice("head", head, ("linear", "mlp", "fc"))
    check_choice("order", order, ("post", "ms"))
    check("width", width, width > 0, "a positive number")
    check("n_classes", n_classes, n_classes >= 1, "at least 1")
    check("shape", shape, len(shape) == 3 and min(shape) >= 1, "(C, H, W), each at least 1")
    spiking = activation in ("if", "lif")
    check("time_steps", time_steps, (time_steps is not None) == spiking, "given exactly for if and lif")

    def make() -> nn.Module:
        try:
            return ACTIVATIONS[activation](**options)
        except TypeError as error:
            raise ValueError(f"options = {options!r} is not allowed: {error}") from error

    if name in VGG:
        net = _vgg(name, make, n_classes, shape, width, pool, head)
    else:
        net = _resnet(name, make, n_classes, shape, width, order)
    _initialise(net, torch.Generator().manual_seed(seed))
    net.time_steps = time_steps
    return net
