"""Sub-models: heads and labels by hand, the retraining set sample by sample, device and server parts bit for bit."""

from __future__ import annotations

import pytest
import torch
from tiny import blobs, lively
from torch import nn

from snnbook import store
from snnbook.data import Split
from snnbook.link.payload import pack, unpack
from snnbook.models import build
from snnbook.splitting.prune import prune
from snnbook.splitting.submodel import (
    device_part,
    linear_stack,
    others_each,
    payload_bits,
    payload_shape,
    relabelled,
    retraining_set,
    server_part,
    with_fresh_head,
)

SHAPE = (1, 8, 8)


def small(time_steps=3, **options):
    net = build("vgg5", "lif", n_classes=4, shape=SHAPE, width=0.1, head="mlp", time_steps=time_steps, **options)
    mask = torch.ones(13, dtype=torch.bool)
    mask[3:7] = False
    return lively(prune(net, {"body.7": mask})).eval()


def numbered(kind="image"):
    """Samples that carry their own number, so that each can be found again."""
    data = blobs(shape=SHAPE if kind == "image" else (3, *SHAPE), classes=4, kind=kind, train=200, validation=40)
    for name in ("train", "calibration", "validation", "test"):
        split = getattr(data, name)
        split.x[:] = torch.arange(len(split)).view(-1, *[1] * (split.x.ndim - 1)).to(torch.uint8)
    return data


def test_a_fresh_head_by_hand():
    pruned = small()
    net = with_fresh_head(pruned, 2, width=0.25, seed=5)
    shapes = [(m.in_features, m.out_features) for m in net.head if isinstance(m, nn.Linear)]
    assert shapes == [(9 * 4, 96), (96, 48), (48, 3)]
    assert [type(m) for m in net.head] == [nn.Flatten] + [nn.Dropout, nn.Linear] * 3
    body = {k: v for k, v in pruned.state_dict().items() if not k.startswith("head")}
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in body.items())
    assert len(pruned.head) == 5  # left alone
    again, other = with_fresh_head(pruned, 2, 0.25, seed=5), with_fresh_head(pruned, 2, 0.25, seed=6)
    assert torch.equal(net.head[2].weight, again.head[2].weight)
    assert not torch.equal(net.head[2].weight, other.head[2].weight)
    assert net.head[2].weight.std().item() == pytest.approx(36**-0.5, rel=0.1)
    for bad in ({"n_own": 0}, {"n_own": 1, "width": 0}):
        with pytest.raises(ValueError, match=list(bad)[-1]):
            with_fresh_head(pruned, **bad)


def test_linear_stack_by_hand():
    layers = linear_stack([6, 5, 4, 3], [0, 0.5, 0])
    assert [type(m) for m in layers] == [nn.Linear, nn.Dropout, nn.Linear, nn.Linear]
    assert layers[1].p == 0.5


def test_labels_by_hand():
    y = torch.tensor([0, 1, 2, 3, 2, 0])
    assert relabelled(y, (2, 0), 4).tolist() == [2, 0, 1, 0, 1, 2]
    assert relabelled(y, (0, 1, 2, 3), 4).tolist() == [1, 2, 3, 4, 3, 1]


def test_others_each_is_the_released_rule():
    assert others_each(50000, 10, 2) == 498
    assert others_each(2707, 10, 1) == 26
    assert others_each(100, 10, 5) == 1


@pytest.mark.parametrize("kind", ["image", "events"])
def test_the_retraining_set_sample_by_sample(kind):
    data, classes = numbered(kind), (1, 3)
    made = retraining_set(data, classes, torch.Generator().manual_seed(0))
    assert made.classes == ("other", "b", "d") and made.n_classes == 3 and made.kind == kind
    per_other = 200 // 40 - 2
    for name, each in {"train": per_other, "validation": 1, "calibration": 1, "test": None}.items():
        old, new = getattr(data, name), getattr(made, name)
        number = new.x.flatten(1)[:, 0].long()
        assert len(number.unique()) == len(number)  # no sample twice
        assert torch.equal(new.y, relabelled(old.y[number], classes, 4))
        counts = torch.bincount(old.y[number], minlength=4)
        whole = torch.bincount(old.y, minlength=4)
        assert counts[[1, 3]].tolist() == whole[[1, 3]].tolist()
        assert counts[[0, 2]].tolist() == (whole[[0, 2]].tolist() if each is None else [each] * 2)


def test_the_draw_is_seeded_and_can_be_sized():
    data = numbered()
    one, same, other = (retraining_set(data, (0,), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one.train.x, same.train.x) and not torch.equal(one.train.x, other.train.x)
    many = retraining_set(data, (0,), torch.Generator().manual_seed(1), per_other=20)
    assert torch.bincount(many.train.y).tolist() == [60, 50]
    everything = retraining_set(data, (0, 1, 2, 3), torch.Generator())
    assert len(everything.train) == 200 and everything.train.y.min() == 1
    for bad in ((), (4,)):
        with pytest.raises(ValueError, match="classes ="):
            retraining_set(data, bad, torch.Generator())


def test_groups_stay_with_their_samples():
    data = numbered()
    object.__setattr__(data, "train", Split(data.train.x, data.train.y, torch.arange(200) // 2))
    made = retraining_set(data, (2,), torch.Generator().manual_seed(0)).train
    assert torch.equal(made.groups, made.x.flatten(1)[:, 0].long() // 2)


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_device_and_server_parts_are_the_network_bit_for_bit(events, pool, tmp_path):
    """Also through packed bits and files: what the server gets is what one process computes."""
    net = with_fresh_head(small(pool=pool), 2, 0.25).eval()
    x = torch.randn(*((3,) if events else ()), 2, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2
    store.save(tmp_path / "device.safetensors", device_part(net))
    store.save(tmp_path / "server.safetensors", server_part(net))
    device, server = (store.load(tmp_path / f"{n}.safetensors")[0] for n in ("device", "server"))
    with torch.no_grad():
        spikes = device(x)
        assert spikes.shape == (3, 2, 9, 4, 4) and set(spikes.unique().tolist()) == {0.0, 1.0}
        received = unpack(pack(spikes), tuple(spikes.shape))
        features = server(received.flatten(0, 1))
        assert features.shape == (6, 36)
        assert torch.equal(net.head(features).unflatten(0, (3, 2)), net(x))


def test_payload_of_one_sample():
    net = small(time_steps=5)
    with torch.no_grad():
        spikes = device_part(net)(torch.zeros(1, *SHAPE))
    assert payload_shape(net, SHAPE) == (5, 9, 4, 4) == (spikes.shape[0], *spikes.shape[2:])
    assert payload_bits(net, SHAPE) == spikes.numel() == 5 * 9 * 16
