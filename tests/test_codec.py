"""The codec: shapes at every split point, halves that run apart bit for bit, files."""

import copy
import math

import pytest
import torch
from torch import nn

from snnbook import store
from snnbook.bottleneck.backbone import backbone, block_names, split_points, twin
from snnbook.bottleneck.codec import Server, compress, expansion, export, feature_shape, head, reduction, tail
from snnbook.link.folder import write_fleet
from snnbook.link.payload import pack, unpack
from snnbook.models import build
from snnbook.neurons import LIF, spiking_layers

SHAPE = (1, 16, 16)


@pytest.fixture(scope="module")
def net():
    """A small spiking backbone with statistics from one batch."""
    return settled(backbone(3, width=1 / 16, shape=SHAPE, n_classes=5))


def settled(net, shape=SHAPE):
    """``net`` with running statistics from one batch, so that its neurons fire."""
    net = copy.deepcopy(net).train()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        net(images(8, shape, seed=9))
    return net.eval()


def images(n, shape=SHAPE, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [SHAPE, (1, 13, 10)])
def test_shapes_from_sizes_are_those_of_a_run(net, shape):
    rows = split_points(net, shape)[["channels", "height", "width"]].apply(tuple, axis=1)
    assert [feature_shape(net, shape, s) for s in range(1, 17)] == rows.tolist()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("point", range(1, 17))
def test_encoder_and_decoder_fit_at_all_sixteen_points(net, point, stride):
    C, H, W = feature_shape(net, SHAPE, point)
    new, report = compress(net, SHAPE, point, C // 4, stride)
    x = torch.rand(3 * 2, C, H, W)
    with torch.no_grad():
        sent = new.body.encoder(x)
        assert new.body.decoder(sent).shape == x.shape
    assert sent.shape[1:] == report.payload == (C // 4, H // stride, W // stride)
    assert set(sent.unique().tolist()) <= {0.0, 1.0}
    assert (report.split_point, report.feature, report.bits_each) == (point, (C, H, W), 3)
    assert report.compression == 4 * stride**2
    assert report.bits == 3 * math.prod(report.payload)


@pytest.mark.parametrize("point, channels, stride", [(1, 4, 1), (5, 8, 2), (16, 32, 1), (16, 8, 2)])
def test_halves_give_the_logits_of_the_whole_bit_for_bit(net, point, channels, stride):
    new = settled(compress(net, SHAPE, point, channels, stride)[0])
    x = images(2)
    with torch.no_grad():
        spikes = head(new)(x)
        wire = unpack(pack(spikes), spikes.shape)
        assert torch.equal(tail(new)(wire), new(x))
    assert 0 < spikes.mean() < 1 and spikes.shape[:2] == (3, 2)


def test_halves_of_a_long_run_that_is_streamed(net):
    new = settled(compress(net, SHAPE, 4, 8)[0])
    new.time_steps = 11
    with torch.no_grad():
        assert torch.equal(tail(new)(head(new)(images(2))), new(images(2)))


def test_halves_share_nothing_with_the_whole(net):
    new = compress(net, SHAPE, 2, 4)[0]
    parts = [head(new), tail(new)]
    own = {p.data_ptr() for p in new.parameters()}
    assert not own & {p.data_ptr() for part in parts for p in part.parameters()}
    n = sum(p.numel() for part in parts for p in part.parameters())
    assert n == sum(p.numel() for p in new.parameters())


def test_compress_leaves_the_backbone_alone_and_its_names(net):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    new = compress(net, SHAPE, 7, 4)[0]
    after = new.state_dict()
    assert all(torch.equal(v, after[k]) and torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert {k.split(".")[1] for k in after.keys() - before.keys()} == {"encoder", "decoder"}
    assert {layer.time_steps for layer in spiking_layers(new).values()} == {3}
    assert block_names(new) == block_names(net)


@pytest.mark.parametrize("order, kinds", [("ms", "LCBL"), ("post", "CBL")])
def test_layers_of_the_codec(order, kinds):
    small = backbone(2, width=1 / 16, shape=SHAPE, blocks=(1, 1), order=order, threshold=0.7)
    letters = {"LIF": "L", "Conv2d": "C", "ConvTranspose2d": "T", "BatchNorm2d": "B"}
    new = compress(small, SHAPE, 2, 4, 2)[0]
    found = ["".join(letters[type(m).__name__] for m in part) for part in (new.body.encoder, new.body.decoder)]
    assert found == [kinds, "TBL"]
    norms = [m for part in (new.body.encoder, new.body.decoder) for m in part if isinstance(m, nn.BatchNorm2d)]
    assert all((m.weight == 0.7).all() for m in norms)
    assert {(m.v_threshold, m.v_reset) for m in spiking_layers(new).values()} == {(0.7, 0.0)}


def test_spatial_reduction_and_its_inverse_tile_the_map():
    """With all-one kernels the encoder sums each 2×2 square and the decoder spreads a number over one."""
    down, up = reduction(1, 1, 2), expansion(1, 1, 2)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    with torch.no_grad():
        down.weight.fill_(1), up.weight.fill_(1)
        assert down(x).flatten().tolist() == [10, 18, 42, 50]
        assert up(down(x))[0, 0].tolist() == [[10, 10, 18, 18]] * 2 + [[42, 42, 50, 50]] * 2


@pytest.mark.parametrize("point, channels, stride, macs", [(1, 4, 1, 9 * 16 * 4 * 256), (16, 8, 2, 128 * 8 * 4)])
def test_macs_of_the_codec(net, point, channels, stride, macs):
    report = compress(net, SHAPE, point, channels, stride)[1]
    assert report.encoder_macs == macs == report.decoder_macs


def test_seed_decides_the_codec(net):
    weights = [compress(net, SHAPE, 3, 4, seed=s)[0].body.encoder[1].weight for s in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_files_run_apart(net, tmp_path):
    new, report = compress(net, SHAPE, 6, 8)
    new = settled(new)
    paths = export(new, report, tmp_path, {"dataset": "none"})
    (device, about), (server, other) = (store.load(path) for path in paths)
    assert [path.name for path in paths] == ["device.safetensors", "server.safetensors"]
    expected = {"time_steps": 3, "payload": list(report.payload), "split_point": 6, "dataset": "none", "part": "device"}
    assert about.pop("network") == other["network"] == store.digest(new.state_dict()) and about == expected
    x = images(1)
    with torch.no_grad():
        assert torch.equal(server([device(x)]), new(x))
        assert torch.equal(server([None]), tail(new)(torch.zeros(3, 1, *report.payload)))


def test_server_answers_after_the_first_steps(net):
    """An early exit: the logits of fewer steps are the first of all."""
    new, report = compress(net, SHAPE, 6, 8)
    new = settled(new)
    server = Server(tail(new), report.payload)
    with torch.no_grad():
        spikes = head(new)(images(1))
        whole, first = server([spikes]), server([spikes[:2]])
    assert first.shape == (2, 1, 5) and server.tail.time_steps == 3
    torch.testing.assert_close(first, whole[:2])


def test_halves_make_a_fleet_of_one(net, tmp_path):
    new, report = compress(net, SHAPE, 6, 8)
    plan = write_fleet(tmp_path, [head(new)], Server(tail(new), report.payload), images(2))
    assert (plan.shapes, plan.time_steps, plan.payload_bytes()) == ((report.payload,), 3, [report.bytes])


def test_server_takes_one_device(net):
    new, report = compress(net, SHAPE, 6, 8)
    with pytest.raises(ValueError):
        Server(tail(new), report.payload)([None, None])


def test_every_weight_of_both_halves_learns(net):
    new = compress(net, SHAPE, 4, 8)[0].train()
    new(images(8)).mean(0).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in new.parameters())
    assert new.body.encoder[1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "args, message",
    [
        ((17, 4, 1), r"split_point = 17 is not allowed: 1 to 16"),
        ((0, 4, 1), r"split_point = 0 is not allowed: 1 to 16"),
        ((1, 0, 1), r"channels = 0 is not allowed: 1 to 16"),
        ((1, 17, 1), r"channels = 17 is not allowed: 1 to 16"),
        ((1, 4, 3), r"stride = 3 is not allowed: at least 1 and a divisor of 16 and 16"),
        ((1, 4, 0), r"stride = 0 is not allowed: at least 1 and a divisor of 16 and 16"),
    ],
)
def test_what_does_not_fit_is_refused(net, args, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        compress(net, SHAPE, *args)


def test_wrong_networks_are_refused(net):
    with pytest.raises(ValueError, match=r"^net.time_steps = None is not allowed: a spiking network$"):
        compress(twin(width=1 / 16, shape=SHAPE), SHAPE, 1, 4)
    with pytest.raises(ValueError, match=r"^net = 'Network' is not allowed: a network with a codec$"):
        head(net)
    with pytest.raises(ValueError, match=r"^net = .*'encoder'.* is not allowed: a network without a codec$"):
        compress(compress(net, SHAPE, 2, 4)[0], SHAPE, 2, 8)
    with pytest.raises(ValueError, match=r"^split_point = 1 is not allowed: 1 to 0$"):
        compress(build("vgg5", "lif", time_steps=2, width=1 / 16), (3, 32, 32), 1, 4)
    assert isinstance(next(iter(spiking_layers(net).values())), LIF)
