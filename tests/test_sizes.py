"""Bytes: Table 1 from packed payloads, codes against strings of binary digits, ratios by hand."""

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snnbook import papers
from snnbook.bottleneck.backbone import backbone, twin
from snnbook.bottleneck.sizes import Report, pack_codes, unpack_codes
from snnbook.bottleneck.table1 import block_outputs, packed_payloads

TABLE_1 = papers.table("spikebottlenet_table1")


def test_all_sixteen_cells_and_reductions_of_table_1_are_packed_payloads():
    """The full ResNet-50 at T = 4 (its first two steps are the run at T = 2), and its ANN twin."""
    ours = packed_payloads(backbone(4), twin(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    for column in ("snn_bytes", "ann_bytes", "reduction"):
        assert ours[column].tolist() == TABLE_1[column].tolist()
    assert ours["spikes"].between(0.01, 0.99).all()  # real spikes, not an empty map
    assert ours.iloc[-1][["compression", "snn_float32", "ann_float32"]].tolist() == [256, 2048, 1024]


def test_several_images_or_too_few_steps_are_refused():
    """Two images would be packed as one, half of each step."""
    x = torch.rand(2, 3, 32, 32)
    small = {"width": 1 / 16, "blocks": (1, 1)}
    cuts = pd.DataFrame({"split_point": [1], "time_steps": [2], "stride": 1, "snn_channels": 2, "ann_channels": 2})
    snn, ann = backbone(2, **small), twin(**small)
    assert packed_payloads(snn, ann, x[:1], cuts)["snn_bytes"].tolist() == [2 * 2 * 32 * 32 // 8]
    with pytest.raises(ValueError, match=r"shape of x = \(2, 3, 32, 32\) is not allowed: one image \[1, C, H, W\]"):
        packed_payloads(snn, ann, x, cuts)
    with pytest.raises(ValueError, match=r"snn.time_steps = 2 is not allowed: at least 4, as the cuts have"):
        packed_payloads(snn, ann, x[:1], cuts.assign(time_steps=4))


def test_outputs_of_blocks_start_with_those_of_a_shorter_run():
    """So one run at T = 4 serves the cuts at T = 2. A single neuron knows nothing of later steps."""
    net, x = backbone(4, width=1 / 16, shape=(1, 8, 8), blocks=(1, 1)), torch.rand(1, 1, 8, 8)
    long = block_outputs(net.eval(), x)
    assert [y.shape for y in long] == [(4, 16, 8, 8), (4, 32, 4, 4)] and not net.training
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.train = lambda mode=True, m=m: m  # statistics stay as they are
    long = block_outputs(net, x)
    net.time_steps = 2
    for a, b in zip(long, block_outputs(net, x), strict=True):
        torch.testing.assert_close(a[:2], b)


def test_the_whole_reduction_is_t_bits_against_eight_bits():
    elements = TABLE_1["snn_channels"] / TABLE_1["ann_channels"]
    assert (100 * (1 - TABLE_1["time_steps"] * elements / 8)).tolist() == TABLE_1["reduction"].tolist()


def test_scales_of_the_headline():
    spikes = Report(16, (2048, 4, 4), (32, 2, 2), 4, 0, 0)
    codes = Report(16, (2048, 4, 4), (32, 2, 2), 8, 0, 0)
    assert (spikes.bits, spikes.bytes, spikes.compression, spikes.float32_compression) == (512, 64, 256, 2048)
    assert (codes.bytes, codes.float32_compression) == (128, 1024)


def test_bytes_are_rounded_up():
    assert [Report(1, (4, 3, 3), (1, 3, 3), bits, 0, 0).bytes for bits in (1, 2, 8)] == [2, 3, 9]


@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=70))
def test_codes_are_a_string_of_binary_digits(bits, numbers):
    codes = torch.tensor([n % 2**bits for n in numbers], dtype=torch.uint8)
    text = "".join(format(c, f"0{bits}b") for c in codes.tolist())
    data = pack_codes(codes, bits)
    assert data == bytes(int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8))
    assert torch.equal(unpack_codes(data, codes.shape, bits), codes)


def test_shape_of_codes_is_kept():
    codes = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2) % 4
    assert torch.equal(unpack_codes(pack_codes(codes, 2), codes.shape, 2), codes)
    strided = codes.contiguous(memory_format=torch.channels_last)
    assert pack_codes(strided, 2) == pack_codes(codes, 2)


def test_bad_codes_are_refused():
    with pytest.raises(ValueError, match=r"^codes = 4 is not allowed: whole numbers from 0 to 3$"):
        pack_codes(torch.tensor([4]), 2)
    with pytest.raises(ValueError, match=r"^bits = 9 is not allowed: 1 to 8$"):
        pack_codes(torch.tensor([4]), 9)
    for wrong in (0.5, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"^codes = {wrong} is not allowed: whole numbers"):
            pack_codes(torch.tensor([1.0, wrong]), 2)
    assert pack_codes(torch.tensor([1.0, 3.0]), 2) == bytes([0b01110000])
    for bits in (0, 9):
        with pytest.raises(ValueError, match=rf"^bits = {bits} is not allowed: 1 to 8$"):
            unpack_codes(b"", (0,), bits)
    with pytest.raises(ValueError, match=r"^bytes of data = 1 is not allowed: 2 for codes of shape \(3, 3\)$"):
        unpack_codes(b"\0", (3, 3), 1)
