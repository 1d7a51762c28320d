import dataclasses

import pytest
import torch
from tiny import blobs, small_net
from torch import nn

from snnbook.evaluate import accuracy, accuracy_over_time, outputs
from snnbook.models import build

SMALL = {"width": 1 / 16, "shape": (1, 6, 6), "n_classes": 3}


@pytest.fixture(scope="module")
def data():
    return blobs()


def by_hand(net, data, split="test", T=None):
    """Share of right answers, one sample at a time."""
    part, right = getattr(data, split), 0
    for x, y in zip(part.x, part.y, strict=True):
        with torch.no_grad():
            logits = net(((x.float() - data.mean[:, None, None]) / data.std[:, None, None]).unsqueeze(0))
        scores = logits[:T].sum(0)[0] if logits.ndim == 3 else logits[0]
        right += int(scores.argmax() == y)
    return right / len(part.y)


@pytest.mark.parametrize("split", ["train", "calibration", "validation", "test"])
@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_accuracy_of_an_ann_sample_by_sample(data, split, batch_size):
    net = small_net().eval()
    assert accuracy(net, data, split, batch_size=batch_size) == by_hand(net, data, split)


def test_accuracy_over_time_equals_a_run_of_its_own_at_every_number_of_steps(data):
    net = build("vgg5", "if", time_steps=3, v_threshold=0.3, seed=1, **SMALL).eval()
    steps = [7, 1, 3, 2, 5]
    table = accuracy_over_time(net, data, steps, batch_size=10)
    assert net.time_steps == 3
    assert table["time_steps"].tolist() == sorted(steps)
    expected = []
    for T in sorted(steps):
        net.time_steps = T
        expected.append(accuracy(net, data))
        assert expected[-1] == by_hand(net, data)
    assert table["accuracy"].tolist() == expected
    assert len(set(expected)) > 1


def test_events_are_evaluated_step_by_step():
    data = blobs(shape=(4, 1, 6, 6), kind="events")
    net = build("vgg5", "if", time_steps=4, v_threshold=0.3, seed=1, **SMALL).eval()
    table = accuracy_over_time(net, data, [1, 4])
    with torch.no_grad():
        logits = torch.cat([net(x) for x, _ in data.batches("test", 7)], 1)
    y = data.test.y
    expected = [(logits[:T].mean(0).argmax(1) == y).double().mean().item() for T in (1, 4)]
    assert table["accuracy"].tolist() == expected


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_put_back_and_dropout_is_off(data, training):
    net = small_net(dropout=0.9).train(training)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    found = {accuracy(net, data) for _ in range(5)}
    assert len(found) == 1
    assert net.training is training and all(m.training is training for m in net.modules())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())  # no batch norm statistics moved


def test_mode_and_time_steps_are_put_back_after_an_error(data):
    net = build("vgg5", "if", time_steps=3, **SMALL).train()
    bad = dataclasses.replace(data, test=dataclasses.replace(data.test, x=data.test.x.expand(-1, 2, -1, -1)))
    with pytest.raises(RuntimeError):
        accuracy_over_time(net, bad, [1, 2])
    assert net.training and net.time_steps == 3


def test_outputs_have_no_gradient_and_cover_the_split_in_order(data):
    seen = list(outputs(small_net(), data, "validation", batch_size=7))
    assert [len(y) for _, y in seen] == [7, 7, 7, 3]
    assert not any(logits.requires_grad for logits, _ in seen)
    assert torch.equal(torch.cat([y for _, y in seen]), data.validation.y)


@pytest.mark.parametrize("steps", [[], [0], [4, -1]])
def test_steps_below_one_are_refused(data, steps):
    net = build("vgg5", "if", time_steps=3, **SMALL)
    with pytest.raises(ValueError, match=r"^time_steps = \[.*\] is not allowed: numbers of at least 1$"):
        accuracy_over_time(net, data, steps)


@pytest.mark.parametrize("net", [build("vgg5", **SMALL), nn.Flatten()], ids=["ann", "module"])
def test_a_network_without_time_steps_is_refused(data, net):
    with pytest.raises(ValueError, match=r"^net.time_steps = None is not allowed: a spiking network$"):
        accuracy_over_time(net, data, [1])


def test_each_module_has_its_own_mode_back(data):
    """A frozen part in eval mode stays there."""
    net = small_net().train()
    net[1].eval()
    accuracy(net, data)
    assert net.training and net[5].training and not net[1].training


def test_a_split_without_samples_is_refused(data):
    none = dataclasses.replace(data, test=dataclasses.replace(data.test, x=data.test.x[:0], y=data.test.y[:0]))
    with pytest.raises(ValueError, match="^data.test = 0 is not allowed: at least one sample$"):
        accuracy(small_net(), none)
    snn = build("vgg5", "if", time_steps=2, **SMALL)
    with pytest.raises(ValueError, match="^data.test = 0 is not allowed: at least one sample$"):
        accuracy_over_time(snn, none, [1, 2])


def test_an_unknown_split_is_refused_with_the_known_ones(data):
    snn = build("vgg5", "if", time_steps=2, **SMALL)
    for call in (lambda: accuracy(snn, data, "val"), lambda: accuracy_over_time(snn, data, [1], "val")):
        with pytest.raises(ValueError, match="^split = 'val' .* train, calibration, validation, test$"):
            call()
