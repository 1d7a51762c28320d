"""The roofline against operations and bytes counted by hand."""

import pytest
import torch
from torch import nn

from snnbook import models, roofline
from snnbook.counts import count
from snnbook.network import Network
from snnbook.neurons import IF
from snnbook.roofline import Peak, Work


def net(time_steps: int | None) -> Network:
    """1×4×4 → conv 3×3 to 2 channels → activation → average pool → linear to 3."""
    conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    made = Network(conv, nn.Sequential(IF() if time_steps else nn.ReLU(), nn.AvgPool2d(2)),
                   nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False)))  # fmt: skip
    made.time_steps = time_steps
    return made


#: Of one frame: convolution reads 16 and writes 32 values; neuron 32 and 32; pool 32 and 8; linear 8 and 3.
STEM = Work(2 * 18 * 16, 4 * 48)
REST = Work(2 * 24, 4 * (64 + 40 + 11))
WEIGHTS = 4 * (18 + 24)


def test_frame_work_by_hand():
    assert roofline.frame_work(net(3), (1, 4, 4)) == (STEM, REST, Work(0, WEIGHTS))
    assert roofline.frame_work(net(None), (1, 4, 4)) == (STEM, REST, Work(0, WEIGHTS))


@pytest.mark.parametrize("steps", [None, 1, 5])
def test_inference_does_the_stem_once_an_image_and_the_rest_once_a_step(steps):
    found = roofline.inference_work(net(steps), (1, 4, 4), 6)
    frames = 6 * (steps or 1)
    assert found == Work(6 * STEM.flops + frames * REST.flops, 6 * STEM.bytes + frames * REST.bytes + WEIGHTS)


def test_training_does_each_product_three_times_but_for_the_gradient_of_the_image():
    found = roofline.training_work(net(5), (1, 4, 4), 6)
    assert found.flops == 2 * 6 * STEM.flops + 3 * 30 * REST.flops


@pytest.mark.parametrize("name", ["vgg9", "resnet20"])
def test_operations_are_those_of_the_closed_form(name):
    net = models.build(name, "if", width=0.25, time_steps=4)
    stem, rest, weights = roofline.frame_work(net, (3, 32, 32))
    assert stem.flops + rest.flops == 2 * count(net, (3, 32, 32))["macs"].sum()
    assert weights.bytes == 4 * sum(p.numel() for p in net.parameters())
    assert net.time_steps == 4


def test_a_residual_addition_reads_two_tensors_and_writes_one():
    before = roofline.frame_work(models.build("resnet20", "relu"), (3, 32, 32))[1].bytes
    block = models.build("resnet20", "relu").body[1]  # 16 channels of 32 × 32, identity shortcut
    x, y = torch.empty(1, 16, 32, 32), torch.empty(1, 16, 32, 32)
    assert roofline._traffic(block, x, y).bytes == 4 * 3 * 16 * 32 * 32 < before


def test_bound_is_the_slower_of_arithmetic_and_memory():
    peak = Peak(flops=100.0, bandwidth=10.0)
    assert Work(1000.0, 50.0).bound(peak) == 10.0
    assert Work(100.0, 50.0).bound(peak) == 5.0
    assert Work(100.0, 50.0).intensity == 2.0


def test_neurons_move_two_tensors_forward_and_five_with_backward():
    assert roofline.neuron_work(1000) == Work(3000.0, 8000.0)
    assert roofline.neuron_work(1000, training=True).bytes == 20000.0


@pytest.mark.parametrize("bad", [(0.0, 1.0), (1.0, -1.0)])
def test_a_peak_is_positive(bad):
    with pytest.raises(ValueError, match="not allowed: a positive number"):
        Peak(*bad)


def test_seconds_is_the_mean_of_calls_until_the_time_is_over(monkeypatch):
    clock, calls = iter([0.0, 0.1, 0.25, 0.25]), []
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: next(clock))
    assert roofline.seconds(lambda: calls.append(1), at_least=0.2) == 0.125 and len(calls) == 2


def test_measured_rates_are_positive_and_count_operations():
    assert roofline.matmul_rate(32, 1) > 0 and roofline.convolution_rate(4, 1, 1) > 0 and roofline.copy_rate(1, 1) > 0
