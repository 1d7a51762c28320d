"""VGG, CifarNet and ResNet descriptions: one module tree, exchangeable activations.

An ANN, a quantised ANN, an IF and a LIF network are the same tree with another activation in the same places.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

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


def batch_norm(channels: int, alpha: float = 1.0) -> nn.BatchNorm2d:
    """Batch norm; ``alpha`` is there for the sake of :func:`tdbn` and changes nothing."""
    return nn.BatchNorm2d(channels)


def tdbn(channels: int, alpha: float = 1.0, threshold: float = 1.0) -> nn.BatchNorm2d:
    """Threshold-dependent batch norm λ·α·θ·(x − μ)/√(σ² + ε) + β, statistics over T, N, H and W (Zheng et al. 2021).

    Where T is folded into the batch, [T·N, C, H, W], that is a batch norm whose weight λ·α·θ starts at α·θ.

    Args:
        channels: C.
        alpha: α, 1/√2 where two branches sum before a neuron.
        threshold: θ of the neurons behind it.
    """
    norm = nn.BatchNorm2d(channels)
    nn.init.constant_(norm.weight, alpha * threshold)
    return norm


def _conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, *, norm, alpha: float = 1.0) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, norm(c_out, alpha)]


def _scaled(channels: int, width: float) -> int:
    return max(4, round(channels * width))


def _vgg(name, activation, norm, n_classes, shape, width, pool, head) -> Network:
    blocks, hidden = VGG[name]
    pool = nn.AvgPool2d if pool == "avg" else nn.MaxPool2d
    c, h, w = shape
    layers: list[nn.Module] = []
    for block in blocks:
        if block != "P":
            layers += _conv(c, c := _scaled(block, width), norm=norm) + [activation()]
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


#: α of :func:`tdbn` on two branches that sum.
_SUMMED = 0.5**0.5


def _block(c_in: int, c: int, stride: int, expansion: int, order: str, activation, norm) -> Residual:
    """Basic block (expansion 1) or bottleneck (4), conv–BN–act order ``post`` or act–conv–BN order ``ms``."""
    sizes = [(c_in, c, 3, stride), (c, c, 3, 1)]
    if expansion > 1:
        sizes = [(c_in, c, 1, 1), (c, c, 3, stride), (c, c * expansion, 1, 1)]
    branch: list[nn.Module] = []
    for i, size in enumerate(sizes):
        last = i == len(sizes) - 1
        conv = _conv(*size, norm=norm, alpha=_SUMMED if last else 1.0)
        branch += [activation(), *conv] if order == "ms" else conv + ([] if last else [activation()])
    same = stride == 1 and c_in == c * expansion
    projection = partial(_conv, c_in, c * expansion, 1, stride, norm=norm, alpha=_SUMMED)
    shortcut = nn.Identity() if same else nn.Sequential(*projection())
    return Residual(nn.Sequential(*branch), shortcut, nn.Identity() if order == "ms" else activation())


def _resnet(name, activation, norm, n_classes, shape, width, order, blocks) -> Network:
    stem_width, stages, repeats, expansion = RESNET[name]
    repeats = repeats if blocks is None else blocks
    c = _scaled(stem_width, width)
    stem = nn.Sequential(*_conv(shape[0], c, norm=norm))
    body: list[nn.Module] = [] if order == "ms" else [activation()]
    for stage, (stage_width, repeat) in enumerate(zip(stages, repeats, strict=False)):
        planes = _scaled(stage_width, width)
        for i in range(repeat):
            stride = 2 if stage > 0 and i == 0 else 1
            body.append(_block(c, planes, stride, expansion, order, activation, norm))
            c = planes * expansion
    body += [activation()] if order == "ms" else []
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, n_classes))
    return Network(stem, nn.Sequential(*body), head)


def initialise(net: nn.Module, seed: int) -> nn.Module:
    """``net`` with He-normal convolutions (fan-out), normal linear layers (fan-in) and zero biases from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan = m.weight[:, 0].numel() if isinstance(m, nn.Conv2d) else m.weight[0].numel()
            with torch.no_grad():
                m.weight.normal_(0, fan**-0.5 if isinstance(m, nn.Linear) else (2 / fan) ** 0.5, generator=generator)
                if m.bias is not None:
                    m.bias.zero_()
    return net


def _check_names(**given: str) -> None:
    allowed = {
        "name": [*VGG, *RESNET],
        "activation": ACTIVATIONS,
        "pool": ("avg", "max"),
        "head": ("linear", "mlp", "fc"),
        "order": ("post", "ms"),
        "norm": ("bn", "tdbn"),
    }
    for option, value in given.items():
        check_choice(option, value, allowed[option])


def _check_family(name: str, pool: str, head: str, order: str) -> None:
    """Refuse what the network's family would not look at."""
    for option, value, only in (("pool", pool, "avg"), ("head", head, "linear")):
        check(option, value, name in VGG or value == only, f"{only} for a ResNet")
    check("order", order, name in RESNET or order == "post", "post for a VGG")


def _check_blocks(name: str, blocks: Sequence[int] | None) -> None:
    stages = len(RESNET[name][1]) if name in RESNET else 0
    fits = blocks is None or (1 <= len(blocks) <= stages and min(blocks) >= 1)
    check("blocks", blocks, fits, f"1 to {stages} numbers of at least 1" if stages else "None for a VGG")


def _activation(name: str, options: dict) -> nn.Module:
    """A new activation; no surrogate is shared between layers."""
    try:
        return ACTIVATIONS[name](**copy.deepcopy(options))
    except TypeError as error:
        raise ValueError(f"options = {options!r} is not allowed: {error}") from error


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
    norm: str = "bn",
    blocks: Sequence[int] | None = None,
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
        norm: ``bn``, or ``tdbn`` for spiking networks: batch norms whose output is in units of the threshold.
        blocks: ResNet only. Blocks of each stage, at most as many stages as the network has; its own by default.
        seed: of the initial weights.
        options: keyword arguments of the activation (levels, tau, v_threshold, ...).

    Raises:
        ValueError: for an unknown name or option, with what is allowed.
    """
    _check_names(name=name, activation=activation, pool=pool, head=head, order=order, norm=norm)
    check("width", width, width > 0, "a positive number")
    check("n_classes", n_classes, n_classes >= 1, "at least 1")
    check("shape", shape, len(shape) == 3 and min(shape) >= 1, "(C, H, W), each at least 1")
    spiking = activation in ("if", "lif")
    check("time_steps", time_steps, (time_steps is not None) == spiking, "given exactly for if and lif")
    check("norm", norm, norm == "bn" or spiking, "bn, or tdbn for if and lif")
    _check_blocks(name, blocks)
    _check_family(name, pool, head, order)

    make = partial(_activation, activation, options)
    norms = partial(tdbn, threshold=options.get("v_threshold", 1.0)) if norm == "tdbn" else batch_norm
    if name in VGG:
        net = _vgg(name, make, norms, n_classes, shape, width, pool, head)
    else:
        net = _resnet(name, make, norms, n_classes, shape, width, order, blocks)
    initialise(net, seed)
    net.time_steps = time_steps
    return net
