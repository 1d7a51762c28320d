"""Exchange modules of a network, and fold batch norms into the convolutions before them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def replace(net: nn.Module, new: dict[str, nn.Module]) -> nn.Module:
    """A copy of ``net`` with the modules named in ``new`` exchanged."""
    net = copy.deepcopy(net)
    for name, module in new.items():
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, module)
    return net


def fold_batchnorm(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy in eval mode whose batch norms are folded into the convolutions before them, equation (7).

    Args:
        net: any module; what follows what is read from one forward pass.
        example: input of that pass.
    """
    made_by, pairs, handles = {}, {}, []

    def note(name, module):
        def hook(_, inputs, y):
            if isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made_by:
                pairs[name] = made_by[id(inputs[0])][0]
            elif isinstance(module, nn.Conv2d):
                made_by[id(y)] = name, y  # keeps y alive, so that its id is not reused

        return hook

    net = copy.deepcopy(net).eval()
    for name, module in net.named_modules():
        handles.append(module.register_forward_hook(note(name, module)))
    with torch.no_grad():
        net(example)
    for handle in handles:
        handle.remove()
    new: dict[str, nn.Module] = {}
    for bn, conv in pairs.items():
        new[conv] = fuse_conv_bn_eval(net.get_submodule(conv), net.get_submodule(bn))
        new[bn] = nn.Identity()
    return replace(net, new)
