"""BottleNet++ on the ANN twin: quantiser, payloads, three steps; and image codecs."""

import copy

import numpy as np
import pytest
import torch
from tiny import blobs, same_state
from torch import nn

from snnbook.bottleneck.backbone import backbone, twin
from snnbook.bottleneck.baseline import IMAGE_CODECS, Quantise, compress, frozen, recode, recoded
from snnbook.bottleneck.codec import head, tail
from snnbook.bottleneck.sizes import pack_codes, unpack_codes
from snnbook.data import load
from snnbook.train import Recipe, fit

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def net():
    return twin(width=1 / 16, shape=SHAPE, n_classes=3, blocks=(1, 1)).eval()


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_are_even_and_reach_both_ends(bits):
    x = torch.linspace(0, 1, 4001, dtype=torch.float64)
    q = Quantise(bits)
    y = q(x)
    assert y.unique().tolist() == pytest.approx(np.linspace(0, 1, 2**bits).tolist())
    assert (y - x).abs().max() <= 0.5 / (2**bits - 1) + 1e-7
    assert torch.equal(q.values(q.codes(x.float())), q(x.float()))


def test_what_is_beyond_the_interval_is_clamped_where_the_printed_quantiser_wraps():
    x = torch.tensor([-0.1, 0.0, 0.999, 1.0, 1.2])
    assert Quantise(8).codes(x).tolist() == [0, 0, 255, 255, 255]
    printed = (256 * x[2:4]).round().to(torch.int64) % 256
    assert printed.tolist() == [0, 0]


def test_gradient_goes_straight_through():
    x = torch.rand(50, requires_grad=True)
    (Quantise(2)(x) * torch.arange(50.0)).sum().backward()
    assert torch.equal(x.grad, torch.arange(50.0))


@pytest.mark.parametrize("point, channels, stride, bits", [(1, 4, 1, 8), (2, 8, 2, 2), (2, 4, 1, 1)])
def test_halves_joined_by_packed_codes_are_the_whole(net, point, channels, stride, bits):
    new, report = compress(net, SHAPE, point, channels, stride, bits=bits)
    new.eval()
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    quantise = new.body.encoder[-1]
    with torch.no_grad():
        sent = head(new)(x)
        data = pack_codes(quantise.codes(sent[:1]), bits)
        codes = pack_codes(quantise.codes(sent), bits)
        received = quantise.values(unpack_codes(codes, sent.shape, bits))
        assert torch.equal(received, sent) and torch.equal(tail(new)(received), new(x))
    assert len(data) == report.bytes == bits * channels * (8 // stride) ** 2 // 4 ** (point - 1) // 8
    assert sent.shape[1:] == report.payload and 0 <= sent.min() and sent.max() <= 1


def test_layers_of_the_codec(net):
    new = compress(net, SHAPE, 2, 4, 2)[0]
    names = [[type(m).__name__ for m in part] for part in (new.body.encoder, new.body.decoder)]
    assert names == [["Conv2d", "BatchNorm2d", "Sigmoid", "Quantise"], ["ConvTranspose2d", "BatchNorm2d", "ReLU"]]


def test_only_the_codec_learns_while_the_rest_is_frozen(net):
    new = compress(net, SHAPE, 1, 4)[0]
    before = copy.deepcopy(new)
    with frozen(new):
        fit(new, blobs(shape=SHAPE), Recipe(epochs=1, batch_size=20, weight_decay=1e-2))
    for name, part in new.body.named_children():
        old = before.body.get_submodule(name)
        names = [k for k in part.state_dict() if not k.endswith("num_batches_tracked")]
        same = all(torch.equal(part.state_dict()[k], old.state_dict()[k]) for k in names)
        assert same == (name not in ("encoder", "decoder")), name
    assert same_state(dict(new.head.named_parameters()), dict(before.head.named_parameters()))
    assert all(p.requires_grad for p in new.parameters())
    assert {m.momentum for m in new.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_thawed_after_an_error(net):
    new = compress(net, SHAPE, 1, 4)[0]
    with pytest.raises(KeyError), frozen(new):
        raise KeyError
    assert all(p.requires_grad for p in new.parameters())


def test_lossless_codecs_give_the_image_back_and_lossy_ones_shrink_with_quality():
    images = load("digits", limit=200).test.x[:12]
    colour = images.repeat(1, 3, 1, 1)
    colour[:, 1] //= 2
    for batch in (images, colour):
        for codec in ("png", "webp_lossless"):
            back, sizes = recode(batch, codec)
            assert torch.equal(back, batch) and (sizes > 20).all()
        for codec in ("jpeg", "webp"):
            found = [recode(batch, codec, q) for q in (5, 50, 95)]
            means = [sizes.double().mean() for _, sizes in found]
            errors = [(back.float() - batch.float()).square().mean() for back, _ in found]
            assert means == sorted(means) and errors == sorted(errors, reverse=True)


def test_recoded_data_differ_in_their_validation_and_test_images_only():
    data = load("digits", limit=200)
    new, size = recoded(data, "jpeg", 10)
    for split in ("validation", "test"):
        before, after = getattr(data, split), getattr(new, split)
        assert torch.equal(after.x, recode(before.x, "jpeg", 10)[0]) and not torch.equal(after.x, before.x)
        assert torch.equal(after.y, before.y)
    assert new.train is data.train and new.calibration is data.calibration
    assert size == recode(data.test.x, "jpeg", 10)[1].double().mean()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Quantise(9), r"bits = 9 is not allowed: 1 to 8"),
        (lambda: Quantise(0), r"bits = 0 is not allowed: 1 to 8"),
        (lambda: recode(torch.zeros(1, 1, 4, 4), "png"), r"images = torch.float32 is not allowed: torch.uint8"),
        (lambda: recode(torch.zeros(1, 2, 4, 4).byte(), "png"), r"channels = 2 is not allowed: 1 or 3, .* have them"),
        (lambda: recode(torch.zeros(0, 1, 4, 4).byte(), "png"), r"images = \(0, 1, 4, 4\) .* at least one image"),
        (lambda: recode(torch.zeros(1, 4, 4).byte(), "png"), r"images = \(1, 4, 4\) .* \[N, C, H, W\] .*"),
        (lambda: recode(torch.zeros(1, 1, 4, 4).byte(), "jpeg", 101), r"quality = 101 is not allowed: 0 to 100"),
        (lambda: recode(torch.zeros(1, 1, 4, 4).byte(), "gif"), rf"codec = 'gif' .* one of {', '.join(IMAGE_CODECS)}"),
        (lambda: compress(backbone(2, width=1 / 16, shape=SHAPE), SHAPE, 1, 4), r"net.time_steps = 2 .*: an ANN"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
