"""Exchange modules of a network, fold batch norms into convolutions, and say what a processor does well with it."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def device_of(net: nn.Module) -> torch.device:
    """Where the first parameter or buffer of ``net`` is; the CPU if it has none."""
    return next((t.device for part in (net.parameters(), net.buffers()) for t in part), torch.device("cpu"))


def replace(net: nn.Module, new: dict[str, nn.Module]) -> nn.Module:
    """A copy of ``net`` with the modules named in ``new`` exchanged; those are moved to the device of ``net``."""
    net = copy.deepcopy(net)
    device = device_of(net)
    for name, module in new.items():
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, module.to(device))
    return net


def bf16_is_native(device: str) -> bool:
    """Whether ``device`` (cpu or cuda) multiplies bf16 in hardware; emulated bf16 is slower than fp32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu.get_capabilities()
    return bool(cpu.get("amx_bf16") or cpu.get("avx512_bf16"))


def channels_last_is_safe(net: nn.Module) -> bool:
    """Whether ``net`` can be trained channels last on a CPU.

    oneDNN, as PyTorch 2.11 has it, writes past its memory in the weight gradient of a strided 1×1 convolution whose
    input has fewer channels than the processor's vectors: 8 with AVX2, 16 with AVX-512.
    """
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    return not any(m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 16 for m in convs)


class _Uses(TorchDispatchMode):
    """Counts, while it is active, how many operations other than a batch norm take each tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "batch_norm" not in str(function):
            self.of.update(id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        return function(*args, **(kwargs or {}))


def _pairs(net: nn.Module, example: Tensor) -> dict[str, str]:
    """Batch norm → convolution, where each runs once and the output of the one goes to the other and nowhere else."""
    made_by, pairs, calls, uses = {}, {}, Counter(), _Uses()

    def note(name, module):
        def hook(_, inputs, y):
            calls[name] += 1
            if isinstance(module, nn.Conv2d):
                made_by[id(y)] = name, y  # keeps y alive, so that its id is not reused
                uses.of[id(y)] = 0
            elif module.running_mean is not None and id(inputs[0]) in made_by:
                pairs[name] = id(inputs[0])

        return hook

    names = Counter(m for _, m in net.named_modules(remove_duplicate=False))
    watched = ((name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d))
    handles = [m.register_forward_hook(note(name, m)) for name, m in watched if names[m] == 1]
    try:
        with torch.no_grad(), uses:
            uses.of.update(map(id, tree_leaves(net(example))))
    finally:
        for handle in handles:
            handle.remove()
    readers = Counter(pairs.values())
    found = {bn: made_by[y][0] for bn, y in pairs.items() if not uses.of[y] and readers[y] == 1}
    return {bn: conv for bn, conv in found.items() if calls[bn] == calls[conv] == 1}


def fold_batchnorm(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy in eval mode whose batch norms are folded into the convolutions before them, equation (7).

    A batch norm stays where folding would change what the network computes: where the output of the convolution is
    changed in place before it (an in-place ReLU), where something else takes that output too, where one of the two runs
    more than once, and where the batch norm has no running statistics.

    Args:
        net: any module; what follows what is read from one forward pass.
        example: input of that pass.
    """
    net = copy.deepcopy(net).eval()
    new: dict[str, nn.Module] = {}
    for bn, conv in _pairs(net, example).items():
        new[conv] = fuse_conv_bn_eval(net.get_submodule(conv), net.get_submodule(bn))
        new[bn] = nn.Identity()
    return replace(net, new)
