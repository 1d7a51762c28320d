"""Exchange modules of a network, fold batch norms into connections, and say what a processor does well with it."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: What batch norms are folded into, and those that are.
_CONNECTIONS, _NORMS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear), (nn.BatchNorm1d, nn.BatchNorm2d)


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


@torch.no_grad()
def takes_channels_last(net: nn.Module, x: Tensor) -> bool:
    """Whether ``net`` runs channels last, where a ``view`` in somebody's forward pass may be impossible.

    One pass of a copy tells, so that no hook, generator or running statistic takes part; modules of PyTorch and of this
    package are known to run.

    Args:
        net: network that takes ``x``.
        x: a batch, of which the first two images are looked at.
    """
    if all(type(m).__module__.startswith(("torch.nn.", "snnbook.")) for m in net.modules()):
        return True
    try:
        probe = copy.deepcopy(net).eval().to(memory_format=torch.channels_last)
        for m in probe.modules():
            m._forward_hooks.clear(), m._forward_pre_hooks.clear()
        with torch.random.fork_rng(devices=[]):
            x = x.to(device_of(net))
            probe(x[:2].contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x)
    except (RuntimeError, TypeError):  # also what cannot be copied
        return False
    return True


class _Uses(TorchDispatchMode):
    """Counts, while it is active, how many operations other than a batch norm take each tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "batch_norm" not in str(function):
            self.of.update(id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        return function(*args, **(kwargs or {}))


def _folds(connection: nn.Module, bn: nn.Module, y: Tensor) -> bool:
    """Whether each output channel of ``connection``, whose output is ``y``, is a channel of ``bn``, a known map."""
    if bn.running_mean is None or getattr(connection, "transposed", False) and connection.groups > 1:
        return False
    return y.ndim == 2 if isinstance(connection, nn.Linear) else isinstance(bn, nn.BatchNorm2d)


def _pairs(net: nn.Module, example: Tensor) -> dict[str, str]:
    """Batch norm → what is before it, where each runs once and the output of the one goes to the other alone."""
    made_by, pairs, calls, uses = {}, {}, Counter(), _Uses()

    def note(name, module):
        def hook(_, inputs, y):
            calls[name] += 1
            if isinstance(module, _CONNECTIONS):
                made_by[id(y)] = name, module, y  # keeps y alive, so that its id is not reused
                uses.of[id(y)] = 0
            elif id(inputs[0]) in made_by and _folds(made_by[id(inputs[0])][1], module, inputs[0]):
                pairs[name] = id(inputs[0])

        return hook

    names = Counter(m for _, m in net.named_modules(remove_duplicate=False))
    watched = ((name, m) for name, m in net.named_modules() if isinstance(m, (*_CONNECTIONS, *_NORMS)))
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
    """A copy in eval mode whose batch norms are folded into what is before them, equation (7).

    That is a convolution, plain or transposed, or a linear layer with outputs [N, F]. A batch norm stays where folding
    would change what the network computes: where the output before it is changed in place (an in-place ReLU), where
    something else takes that output too, where one of the two runs more than once, where the batch norm has no running
    statistics, and after a transposed convolution in groups.

    Args:
        net: any module; what follows what is read from one forward pass.
        example: input of that pass.
    """
    net = copy.deepcopy(net).eval()
    new: dict[str, nn.Module] = {}
    for bn, conv in _pairs(net, example).items():
        connection = net.get_submodule(conv)
        new[conv] = fuse_conv_bn_eval(connection, net.get_submodule(bn), getattr(connection, "transposed", False))
        new[bn] = nn.Identity()
    return replace(net, new)
