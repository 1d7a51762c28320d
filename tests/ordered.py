"""A layer of neurons whose input spikes come in given orders: each image is a set of spike trains."""

import torch
from torch import nn

from snnbook.network import Network
from snnbook.neurons import IF
from snnbook.quantise import QuantClip


class Unroll(nn.Module):
    """From T copies of trains [N, T, I], folded, to their spikes step by step, [T·N, I]."""

    def forward(self, x):
        x = x.unflatten(0, (x.shape[1], -1))
        return torch.cat([x[t, :, t] for t in range(len(x))])


class Rates(nn.Module):
    """Mean of trains [N, T, I] over T."""

    def forward(self, x):
        return x.mean(1)


def ordered(weights, time_steps, theta=1.0, bias=0.0, levels=None):
    """(SNN, ANN): a linear layer [J, I] with neurons on spike trains, and with a QC activation on their rates."""
    weights = torch.as_tensor(weights, dtype=torch.float32)

    def net(first, last):
        linear = nn.Linear(weights.shape[1], weights.shape[0])
        with torch.no_grad():
            linear.weight.copy_(weights)
            linear.bias.fill_(bias)
        return Network(nn.Identity(), nn.Sequential(first, linear, last), nn.Identity())

    snn, ann = net(Unroll(), IF(theta, emit=theta)), net(Rates(), QuantClip(levels or time_steps, 0.0, theta))
    snn.time_steps = time_steps
    return snn.eval(), ann.eval()
