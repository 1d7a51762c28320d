"""Fusion: features against the networks themselves, affine maps multiplied out, votes as probabilities, losses."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from tiny import blobs, lively
from torch import nn

from snnbook import store
from snnbook.evaluate import accuracy
from snnbook.models import build
from snnbook.splitting import fusion as fs
from snnbook.splitting.prune import prune
from snnbook.splitting.submodel import device_part, linear_stack, server_part, with_fresh_head

SHAPE, K, PARTS = (1, 8, 8), 4, ((0, 2), (1,), (3,))


def subs(pool="avg"):
    """Three untrained sub-models of 9, 10 and 11 filters in the last layer."""
    nets = []
    for i, classes in enumerate(PARTS):
        net = build("vgg5", "lif", n_classes=K, shape=SHAPE, width=0.1, head="mlp", time_steps=3, pool=pool, seed=i)
        mask = torch.arange(13) < 9 + i
        nets.append(with_fresh_head(lively(prune(net, {"body.7": mask})), len(classes), 0.1, seed=i).eval())
    return nets


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("kind", ["image", "events"])
def test_features_are_what_the_networks_give(pool, kind):
    data = blobs(shape=SHAPE if kind == "image" else (3, *SHAPE), classes=K, kind=kind)
    nets = subs(pool)
    features = fs.feature_data(nets, data)
    assert fs.feature_sizes(nets) == [36, 40, 44] and features.shape == (3, 120, 1, 1)
    for split in ("train", "calibration", "validation", "test"):
        ((x, y),) = data.batches(split, 64)
        ((z, label),) = features.batches(split, 64)
        with torch.no_grad():
            each = [server_part(net)(device_part(net)(x).flatten(0, 1)).unflatten(0, (3, -1)) for net in nets]
        assert torch.equal(z.flatten(2), torch.cat(each, 2)) and torch.equal(y, label)
    assert features.train.x.dtype == torch.uint8 and features.train.x.max() == (4 if pool == "avg" else 1)


def test_views_are_augmented_copies_of_the_training_images():
    data, nets = blobs(shape=SHAPE, classes=K), subs()
    plain = fs.feature_data(nets, data)
    same = fs.feature_data(nets, data, views=2, augment=lambda x, generator: x, seed=3)
    dark = fs.feature_data(nets, data, views=1, augment=lambda x, generator: x * 0)
    n = len(data.train)
    assert len(same.train) == 3 * n and torch.equal(same.train.x[:n], plain.train.x)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(3))
    assert torch.equal(same.train.x[n : 2 * n], plain.train.x[order])
    assert torch.equal(same.train.y[n : 2 * n], plain.train.y[order])
    assert not torch.equal(same.train.y[2 * n :], same.train.y[n : 2 * n])  # another order
    assert len(dark.train.x[n:].unique(dim=0)) == 1 and torch.equal(dark.test.x, plain.test.x)


def test_sub_models_that_pool_differently_are_refused():
    with pytest.raises(ValueError, match="the same pooling"):
        fs.feature_data([subs("avg")[0], subs("max")[0]], blobs(shape=SHAPE, classes=K))


def test_hidden_devices():
    hide = fs.HideDevices([2, 3, 1], 0.25)
    x = torch.ones(4, 5000, 6)
    assert torch.equal(hide.eval()(x), x)
    hidden = hide.train()(x)
    groups = hidden.split([2, 3, 1], -1)
    for group in groups:  # a device is there as a whole, for all steps, or not at all
        assert torch.equal(group, group[:1, :, :1].expand_as(group))
    share = torch.stack([g[0, :, 0] for g in groups]).mean(1)
    assert (share - 0.75).abs().max() < 4 * (0.25 * 0.75 / 5000) ** 0.5
    pairs = torch.stack([g[0, :, 0] for g in groups])
    assert abs((pairs[0] * pairs[1]).mean() - 0.75**2) < 0.03  # independent
    assert repr(hide) == "HideDevices(sizes=(2, 3, 1), p=0.25)"
    with pytest.raises(ValueError, match="p = 1"):
        fs.HideDevices([1], 1)


def test_a_stack_of_linear_layers_is_one():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), *linear_stack([12, 30, 7, 3], [0.5, 0.5, 0])).eval()
    x = torch.randn(9, 12)
    torch.testing.assert_close(fs.collapsed(head)(x), head(x), rtol=1e-5, atol=1e-6)
    without = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2)).eval()
    torch.testing.assert_close(fs.collapsed(without)(x[:, :4]), without(x[:, :4]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"head = \['ReLU'\]"):
        fs.collapsed(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))


@pytest.mark.parametrize("classes", [(0, 2), (3,), (0, 1, 2, 3)])
def test_votes_are_the_probabilities_of_the_own_head_with_other_shared_out(classes):
    torch.manual_seed(1)
    head = nn.Sequential(nn.Flatten(), nn.Linear(8, len(classes) + 1)).eval()
    x = torch.randn(6, 8)
    own = F.softmax(head(x), 1)
    outside = [k for k in range(K) if k not in classes]
    expected = torch.empty(6, K)
    for i, k in enumerate(classes):
        expected[:, k] = own[:, i + 1]
    for k in outside:
        expected[:, k] = own[:, 0] / len(outside)
    expected /= expected.sum(1, keepdim=True)  # with all classes its own, "other" has nowhere to go
    torch.testing.assert_close(F.softmax(fs.votes(head, classes, K)(x), 1), expected)


def test_logit_average_is_the_product_of_experts_and_hears_only_who_speaks(tmp_path):
    nets = subs()
    fuse = fs.fusion("logit_average", nets, PARTS, K).eval().fuse
    x = torch.randint(0, 5, (3, 7, 120), generator=torch.Generator().manual_seed(2)) / 4
    parts = x.split([36, 40, 44], -1)
    logs = [fs.votes(n.head, c, K)(p).log_softmax(-1) for n, c, p in zip(nets, PARTS, parts, strict=True)]
    product = torch.stack(logs).mean(0)
    torch.testing.assert_close(fuse(x).log_softmax(-1), product.log_softmax(-1))
    lost = x.clone()
    lost[..., 36:76] = 0
    torch.testing.assert_close(fuse(lost).log_softmax(-1), ((logs[0] + logs[2]) / 3).log_softmax(-1))
    assert not fuse(torch.zeros(1, 1, 120)).any()
    store.save(tmp_path / "fuse.safetensors", fuse)
    assert torch.equal(store.load(tmp_path / "fuse.safetensors")[0](x), fuse(x))


def test_shapes_of_the_papers_mlp():
    wide = [with_fresh_head(net, 1) for net in subs()]
    fuse = fs.fusion("mlp", wide, PARTS, K).fuse
    shapes = [(m.in_features, m.out_features) for m in fuse if isinstance(m, nn.Linear)]
    assert shapes == [(120, 384 * 3), (384 * 3, 192 * 3), (192 * 3, K * 3), (K * 3, K)]
    assert [type(m).__name__ for m in fuse] == ["Linear", "Dropout", "Linear", "Dropout", "Linear", "Linear"]
    assert all(m.p == 0.5 for m in fuse if isinstance(m, nn.Dropout))
    probe = fs.fusion("probe", wide, PARTS, K).fuse
    assert [(m.in_features, m.out_features) for m in probe] == [(120, K)]
    with pytest.raises(ValueError, match="rule = 'vote'"):
        fs.fusion("vote", wide, PARTS, K)


def test_first_weights_are_seeded():
    one, same, other = (fs.fusion("probe", subs(), PARTS, K, seed=s).fuse[0].weight for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_losses_are_every_set_or_so_many():
    every = list(fs.losses(4, 64))
    assert every == [s for n in range(5) for s in combinations(range(4), n)]
    some = list(fs.losses(9, 10))
    assert [len(s) for s in some] == sorted(len(s) for s in some) and len(set(some)) == len(some)
    counts = [sum(len(s) == n for s in some) for n in range(10)]
    assert counts == [1, 9, 10, 10, 10, 10, 10, 10, 9, 1]
    assert all(0 <= i < 40 for s in fs.losses(40, 3) for i in s) and list(fs.losses(40, 3)) == list(fs.losses(40, 3))


@pytest.mark.parametrize("rule", ["mlp", "probe", "logit_average"])
def test_accuracy_of_losses_is_that_of_features_set_to_zero(rule):
    nets, data = subs(), blobs(shape=SHAPE, classes=K)
    features = fs.feature_data(nets, data)
    net = fs.fusion(rule, nets, PARTS, K, hide=0.5)
    table = fs.accuracy_of_losses(net, features).set_index("devices")
    assert list(table["lost"]) == [0, 1, 1, 1, 2, 2, 2, 3]
    spans = {"0": slice(0, 36), "1": slice(36, 76), "2": slice(76, 120)}
    for names, row in table.iterrows():
        copy = features.test.x.clone()
        for name in names.split():
            copy[:, :, spans[name]] = 0
        ((z, y),) = features.batches(type(features.test)(copy, features.test.y), 64)
        expected = (net.eval()(z).mean(0).argmax(1) == y).double().mean().item()
        assert row["accuracy"] == pytest.approx(expected)
    assert table.loc["", "accuracy"] == pytest.approx(accuracy(net, features))
