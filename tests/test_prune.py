"""The rule against a literal loop, pruning against exact equality, sizes against the network that is built."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import blobs
from torch import nn

from snnbook import counts
from snnbook.models import build
from snnbook.record import observe
from snnbook.splitting.apoz import class_zeros
from snnbook.splitting.prune import chain, masks, prune, pruned_size

SHAPE = (2, 8, 8)


def network(model="vgg5", activation="lif", seed=0, head="mlp", **options):
    spiking = {"time_steps": 3} if activation == "lif" else {}
    return build(model, activation, n_classes=3, shape=SHAPE, width=0.1, head=head, seed=seed, **spiking, **options)


def some_masks(net, seed=0, share=0.6):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for conv, _, activation in chain(net):
        mask = torch.rand(net.get_submodule(conv).out_channels, generator=generator) < share
        mask[0] = True
        found[activation] = mask
    return found


def released_rule(apoz, zeta, min_filters):
    """The loop of EC-SNN's released code, layer by layer and filter by filter."""
    result = []
    for nc, layer in enumerate(apoz):
        idxs = []
        for value in layer:
            if (value > ((zeta - nc) / 100)) & (min_filters < len(layer) - idxs.count(0)):
                idxs.append(0)
            else:
                idxs.append(1)
        result.append([bool(i) for i in idxs])
    return result


layers = st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=12), min_size=1, max_size=4)


@settings(deadline=None, max_examples=150)
@given(layers, st.integers(40, 110), st.integers(1, 8))
def test_keep_last_is_the_released_loop(apoz, zeta, floor):
    named = {str(i): torch.tensor([v / 100 for v in layer], dtype=torch.float64) for i, layer in enumerate(apoz)}
    ours = masks(named, zeta, floor, keep="last")
    expected = released_rule([v.tolist() for v in named.values()], zeta, floor)
    assert [m.tolist() for m in ours.values()] == expected


@settings(deadline=None, max_examples=150)
@given(layers, st.integers(40, 110), st.integers(1, 8))
def test_keep_lowest_has_as_many_filters_and_none_with_more_zeros(apoz, zeta, floor):
    named = {str(i): torch.tensor([v / 100 for v in layer], dtype=torch.float64) for i, layer in enumerate(apoz)}
    lowest, last = masks(named, zeta, floor), masks(named, zeta, floor, keep="last")
    for name, values in named.items():
        assert lowest[name].sum() == last[name].sum() >= min(floor, len(values))
        if not lowest[name].all():
            assert values[lowest[name]].max() <= values[~lowest[name]].min()


def test_rule_by_hand():
    apoz = {"a": torch.tensor([0.95, 0.96, 0.2, 0.97]), "b": torch.tensor([0.95, 0.94, 0.945])}
    found = masks(apoz, 95.0, 1)
    assert found["a"].tolist() == [True, False, True, False]  # (95 − 0) / 100, float32 0.95 is just below
    assert found["b"].tolist() == [False, True, False]  # (95 − 1) / 100
    assert masks(apoz, 10, 2)["a"].tolist() == [True, False, True, False]  # the floor keeps the lowest
    assert masks(apoz, 10, 2, keep="last")["a"].tolist() == [False, False, True, True]
    assert masks({"a": torch.ones(4)}, 95, 2)["a"].tolist() == [True, True, False, False]  # a tie: the first
    assert all(m.all() for m in masks(apoz, 102, 1).values())
    for bad in ({"keep": "first"}, {"min_filters": 0}, {"zeta": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            masks(apoz, **{"zeta": 95} | bad)


def test_a_threshold_as_a_share_is_taken_in_percent_and_doubted():
    apoz = {"a": torch.tensor([0.005, 0.5, 0.9])}
    with pytest.warns(UserWarning, match="zeta = 0.95 is taken in percent: did you mean 95?"):
        assert masks(apoz, 0.95, 1)["a"].tolist() == [True, False, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for zeta in (-1, 0, 1, 95, 101):
            masks(apoz, zeta, 1)


def dyadic(net, seed=0):
    """Weights that are multiples of 1/32, so that sums do not depend on their order; norms with some statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                m.weight.copy_(torch.randint(-24, 25, m.weight.shape, generator=generator) / 32)
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.5, 1.5, generator=generator)
                m.bias.uniform_(-0.1, 0.6, generator=generator)
                m.running_mean.normal_(0, 0.2, generator=generator)
                m.running_var.uniform_(0.5, 2, generator=generator)
    return net.eval()


def drives(net, x):
    """Drive of every activation (pre-activations) and the logits."""
    found = {}
    kinds = {n: net.get_submodule(n) for _, _, n in chain(net)}
    handles = [m.register_forward_hook(lambda m, i, o, n=n: found.update({n: i[0].clone()})) for n, m in kinds.items()]
    with torch.no_grad():
        found["logits"] = net(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("activation", ["lif", "relu"])
def test_without_filters_that_never_fire_nothing_changes_downstream(activation):
    net = dyadic(network(activation=activation))
    dead = {name: ~mask for name, mask in some_masks(net, share=0.7).items()}
    with torch.no_grad():
        for _, norm, name in chain(net):
            net.get_submodule(norm).weight[dead[name]] = 0
            net.get_submodule(norm).bias[dead[name]] = -1
    x = torch.randint(-16, 17, (5, *SHAPE), generator=torch.Generator().manual_seed(3)) / 16
    zeros = class_zeros(net, [(x, torch.zeros(5, dtype=torch.int64))], 1)
    chosen = {n: z.apoz() < 1 for n, z in zeros.items()}
    assert all(0 < chosen[n].sum() and not chosen[n][d].any() and d.any() for n, d in dead.items())
    pruned = prune(net, chosen)
    before, after = drives(net, x), drives(pruned, x)
    assert before["logits"].abs().sum() > 0
    tolerance = {"rtol": 0, "atol": 0} if activation == "lif" else {}  # spikes and dyadic weights: no rounding
    torch.testing.assert_close(before["logits"], after["logits"], **tolerance)
    for name, stays in chosen.items():
        torch.testing.assert_close(before[name][..., stays, :, :], after[name], **tolerance)


@pytest.mark.parametrize("model", ["vgg5", "vgg9"])
def test_pruning_is_the_network_with_those_filters_silenced(model):
    """Reference: the whole network, with a mask multiplied onto the output of each activation."""
    net = dyadic(network(model), seed=4)
    chosen = some_masks(net, seed=5)
    x = torch.randint(-16, 17, (4, *SHAPE), generator=torch.Generator().manual_seed(6)) / 16
    handles = [
        net.get_submodule(n).register_forward_hook(lambda m, i, o, mask=mask: o * mask[:, None, None])
        for n, mask in chosen.items()
    ]
    with torch.no_grad():
        expected = net(x)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        assert torch.equal(prune(net, chosen)(x), expected)
    with torch.no_grad():
        assert not torch.equal(net(x), expected)


def test_pruning_leaves_the_original_alone_and_gives_a_network_that_learns():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    small = prune(net, some_masks(net))
    small.train()(torch.randn(4, *SHAPE)).mean().backward()
    assert all(p.grad is not None for p in small.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert small.time_steps == net.time_steps and "in_features=" in repr(small)
    for m in small.modules():
        if isinstance(m, nn.Conv2d):
            assert m.weight.shape[:2] == (m.out_channels, m.in_channels)


@pytest.mark.parametrize("activation", ["lif", "relu"])
@pytest.mark.parametrize("model", ["vgg5", "vgg9", "cifarnet"])
@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_sizes_are_those_of_the_network_that_is_built(model, activation, head):
    net = network(model, activation, head=head)
    chosen = some_masks(net, seed=7)
    table, built = pruned_size(net, chosen, SHAPE), prune(net, chosen)
    dense = counts.count(built, SHAPE)
    assert list(table["layer"]) == list(dense["layer"]) and list(table["macs"]) == list(dense["macs"])
    assert table["parameters"].sum() == counts.parameters(built)
    assert table["bytes"].sum() == sum(t.numel() * t.element_size() for t in built.state_dict().values())
    features = table[table["part"] == "features"]
    assert list(features["kept"]) == [int(m.sum()) for m in chosen.values()]
    assert list(features["filters"]) == [len(m) for m in chosen.values()]
    whole = pruned_size(net, {}, SHAPE)
    assert list(whole["macs"]) == list(counts.count(net, SHAPE)["macs"])


def test_what_is_no_chain_or_no_mask_is_refused():
    residual = build("resnet20", "lif", shape=SHAPE, width=0.25, time_steps=2)
    with pytest.raises(ValueError, match="not residual|chain of convolution"):
        prune(residual, {})
    net = network()
    wrong = {
        "body.99": torch.ones(6, dtype=torch.bool),
        "body.0": torch.ones(7, dtype=torch.bool),
        "body.4": torch.zeros(13, dtype=torch.bool),
        "body.7": torch.ones(13),
    }
    for name, mask in wrong.items():
        with pytest.raises(ValueError, match="masks"):
            prune(net, {name: mask})
    net.body[0].v_init = torch.zeros(6, 1, 1)
    with pytest.raises(ValueError, match="net = "):
        prune(net, {})


def test_events_are_pruned_alike():
    data = blobs(shape=(3, *SHAPE), kind="events")
    net = dyadic(network())
    small = prune(net, some_masks(net))
    seen = []
    with torch.no_grad(), observe(small, neuron=lambda n, m, d, o: seen.append(o.shape[1])):
        for x, _ in data.batches("test", 8):
            assert small(x).shape == (3, len(_), 3)
    assert set(seen) == {int(m.sum()) for m in some_masks(net).values()}
