"""Table 1 of SpikeBottleNet from the networks themselves: an image goes in, what comes out is packed and weighed."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from ..checks import check
from ..link.payload import pack
from ..network import Network
from ..neurons import spiking_layers
from ..papers import table as published
from . import baseline
from .backbone import block_names
from .codec import codec
from .sizes import Shape, pack_codes


def block_outputs(net: Network, x: Tensor) -> list[Tensor]:
    """What each block puts out, [T·N, C, H, W] (an ANN: [N, C, H, W]), normalised by the batch itself.

    Statistics of the batch make an untrained network fire.
    """
    found, handles, training = [], [], net.training
    for name in block_names(net):
        block = net.body.get_submodule(name)
        handles.append(block.register_forward_hook(lambda m, inputs, y: found.append(y)))
    try:
        with torch.no_grad():
            net.train()(x)
    finally:
        net.train(training)
        for handle in handles:
            handle.remove()
    return found


def packed_payloads(snn: Network, ann: Network, x: Tensor, cuts: pd.DataFrame | None = None) -> pd.DataFrame:
    """Bytes of the packed payloads of both methods at every split point.

    Args:
        snn: spiking ResNet whose T is at least that of every cut; the first steps of its run are a run of fewer.
        ann: the ANN twin.
        x: one image [1, C, H, W].
        cuts: ``split_point``, ``time_steps``, ``stride``, ``snn_channels``, ``ann_channels``; the paper's by default.

    Returns:
        Columns ``split_point``, ``snn_bytes``, ``ann_bytes``, ``reduction`` (percent), ``compression`` (of spikes to
        spikes), ``snn_float32`` and ``ann_float32`` (compression of 32-bit floats), ``encoder_macs`` (of the spiking
        encoder, per step), ``spikes`` (share of ones).

    Raises:
        ValueError: for several images, or a network of fewer steps than a cut.
    """
    cuts = published("spikebottlenet_table1") if cuts is None else cuts
    steps = int(cuts["time_steps"].max())
    check("shape of x", tuple(x.shape), x.ndim == 4 and len(x) == 1, "one image [1, C, H, W]")
    check("snn.time_steps", snn.time_steps, snn.time_steps >= steps, f"at least {steps}, as the cuts have")
    shape: Shape = tuple(x.shape[1:])
    potentials, activations, before, rows = block_outputs(snn, x), block_outputs(ann, x), snn.time_steps, []
    for cut in cuts.itertuples():
        snn.time_steps = cut.time_steps
        (spiking, _), sent = codec(snn, shape, cut.split_point, cut.snn_channels, cut.stride)
        (real, _), codes = baseline.codec(ann, shape, cut.split_point, cut.ann_channels, cut.stride)
        for layer in spiking_layers(spiking).values():
            layer.time_steps = cut.time_steps
        with torch.no_grad():
            spikes = spiking(potentials[cut.split_point - 1][: cut.time_steps])
            values = real(activations[cut.split_point - 1])
        snn_bytes, ann_bytes = len(pack(spikes)), len(pack_codes(real[-1].codes(values), 8))
        sizes = snn_bytes, ann_bytes, 100 * (1 - snn_bytes / ann_bytes)
        scales = sent.compression, sent.float32_compression, codes.float32_compression
        rows.append((cut.split_point, *sizes, *scales, sent.encoder_macs, spikes.mean().item()))
    snn.time_steps = before
    columns = ["split_point", "snn_bytes", "ann_bytes", "reduction", "compression", "snn_float32", "ann_float32"]
    return pd.DataFrame(rows, columns=[*columns, "encoder_macs", "spikes"])
