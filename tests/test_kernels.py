import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import neuron, surrogate

from snnbook import kernels
from snnbook.kernels import backend
from snnbook.neurons import IF, LIF


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="module")
def compiler():
    """Skip where no kernel can be compiled; forget a failure that another test provoked."""
    kernels._state["broken"] = False
    with backend("compiled"):
        IF()(torch.ones(2, 8))
    if kernels._state["broken"]:
        pytest.skip("no compiler for torch.compile")


# Few constants and T, so that few kernels are compiled; thresholds, shapes and potentials do not need another one.
KINDS = {
    "IF": (4, IF, neuron.IFNode, {"v_reset": None}),
    "LIF, hard reset": (3, LIF, neuron.LIFNode, {"v_reset": -0.1, "tau": 1.7, "decay_input": True}),
    "LIF, soft reset": (7, LIF, neuron.LIFNode, {"v_reset": None, "tau": 2.0, "decay_input": False}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_kernel_equals_spikingjelly_bit_for_bit(compiler, kind):
    T, ours, theirs, options = KINDS[kind]

    @settings(max_examples=25, deadline=None)
    @given(st.floats(0.05, 4.0), st.integers(2, 5), st.integers(2, 9), st.integers(0, 1000), st.booleans())
    def check(threshold, n, m, seed, quarters):
        x, v0 = normal(T, n, m, seed=seed), normal(n, m, seed=seed + 1)
        if quarters:  # h meets θ exactly
            x, v0, threshold = (x * 4).round() / 4, (v0 * 4).round() / 4, 0.5
        node = theirs(v_threshold=threshold, step_mode="m", **options)
        node.v = v0.clone()
        with backend("compiled"), torch.no_grad():
            layer = ours(v_threshold=threshold, v_init=v0, **options)
            spikes = layer(x)
            layer.keep_v = False
            assert torch.equal(layer(x), spikes) and layer.v is None
            layer.keep_v = True
            layer(x)
        assert torch.equal(spikes, node(x))
        assert torch.equal(layer.v, node.v)

    check()
    assert not kernels._state["broken"]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_compiled_kernel_equal_spikingjelly(compiler, kind):
    T, ours, theirs, options = KINDS[kind]
    for seed, threshold in enumerate((0.3, 1.0, 2.2)):
        a, b = (normal(T, 3, 5 + seed, seed=seed).requires_grad_() for _ in range(2))
        weight = normal(T, 3, 5 + seed, seed=9)
        node = theirs(v_threshold=threshold, step_mode="m", surrogate_function=surrogate.ATan(), **options)
        with backend("compiled"):
            layer = ours(v_threshold=threshold, **options | {"detach_reset": False})
            for net, x in ((node, a), (layer, b)):
                ((net(x) * weight).sum() + net.v.sum()).backward()
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-6)
    assert not kernels._state["broken"]


@pytest.mark.parametrize("name", ["eager", "compiled"])
def test_a_scalar_potential_is_no_less_exact_than_one_of_every_neuron(compiler, name):
    """A bf16 drive must not round the potentials of the backward pass either."""
    spikes, slopes = [], []
    for v0 in (0.25, torch.full((2, 50), 0.25)):
        x = normal(6, 2, 50).bfloat16().requires_grad_()
        with backend(name):
            y = LIF(tau=1.7, v_init=v0, detach_reset=False)(x)
        (y * normal(6, 2, 50, seed=1)).sum().backward()
        spikes.append(y.detach())
        slopes.append(x.grad)
    assert torch.equal(*spikes) and torch.equal(*slopes) and slopes[0].abs().sum() > 0


def test_without_a_compiler_it_says_so_once_and_gives_the_same(monkeypatch, caplog):
    def no_compiler(*args, **options):
        raise RuntimeError("no C++ compiler found\nsecond line")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setitem(kernels._state, "broken", False)
    kernels._compiled.cache_clear()
    x = normal(5, 3, 4)
    with backend("eager"):
        expected = IF(0.7)(x)
    with backend("compiled"), caplog.at_level(logging.WARNING):
        assert torch.equal(IF(0.7)(x), expected)
        assert torch.equal(IF(0.7)(x), expected)
    assert [r.getMessage() for r in caplog.records if r.name == "snnbook"] == [
        "neurons run without a compiler (RuntimeError: no C++ compiler found): slower, same spikes"
    ]
    kernels._compiled.cache_clear()


def test_a_kernel_is_compiled_for_its_number_of_threads(monkeypatch):
    """Two runs with other numbers of threads share a folder of compiled kernels, which are made for one number."""
    asked, before = [], torch.get_num_threads()
    monkeypatch.setattr(torch, "compile", lambda f, options, **_: asked.append(options["cpp.threads"]) or f)
    kernels._compiled.cache_clear()
    try:
        with kernels.backend("compiled"):
            for threads in (1, 2, 1):
                torch.set_num_threads(threads)
                kernels.forward(torch.ones(2, 3), torch.zeros(()), kernels.Dynamics())
    finally:
        torch.set_num_threads(before)
        kernels._compiled.cache_clear()
    assert asked == [1, 2]


def test_small_drives_are_not_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(kernels, "_compiled", lambda f, key, threads: asked.append(key) or kernels._in_place)
    monkeypatch.setattr(kernels, "LARGE", 100)
    IF()(torch.ones(4, 24))
    assert asked == []
    IF()(torch.ones(4, 25))
    assert len(asked) == 1
    with backend("eager"):
        IF()(torch.ones(4, 25))
    assert len(asked) == 1


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend = 'fast' is not allowed"), backend("fast"):
        pass


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 20])
def test_long_trains_are_run_in_pieces_with_the_same_result(steps):
    x, layer = normal(steps, 2, 6), LIF(tau=2.0, v_init=0.2)
    node = neuron.LIFNode(tau=2.0, v_reset=None, step_mode="m")
    node.v = torch.full((2, 6), 0.2)
    assert torch.equal(layer(x), node(x))
    assert torch.equal(layer.v, node.v)


def test_channels_last_stays_and_changes_nothing():
    x = normal(3 * 2, 4, 5, 6)
    layers = IF(0.8, v_init=normal(1, 4, 5, 6, seed=1)), IF(0.8, v_init=normal(1, 4, 5, 6, seed=1))
    outputs = []
    for layer, drive in zip(layers, (x, x.contiguous(memory_format=torch.channels_last)), strict=True):
        layer.time_steps = 3
        outputs.append(layer(drive))
    assert torch.equal(*outputs) and torch.equal(layers[0].v, layers[1].v)
    assert outputs[1].is_contiguous(memory_format=torch.channels_last)
    assert outputs[1].sum() > 0


@pytest.mark.parametrize("contiguous", [True, False])
def test_a_constant_drive_may_come_as_a_view(contiguous):
    z = normal(2, 4, 5, 6)
    z = z if contiguous else z.contiguous(memory_format=torch.channels_last)
    copied, seen = IF(0.6), IF(0.6)
    a, b = (z.clone().requires_grad_() for _ in range(2))
    first, second = copied(a.repeat(6, 1, 1, 1, 1)), seen(b.expand(6, *b.shape))
    assert torch.equal(first, second)
    for y, layer in ((first, copied), (second, seen)):
        ((y * normal(6, 1, 4, 5, 6, seed=4)).sum() + layer.v.sum()).backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_potentials_stay_in_float32_under_a_bf16_drive():
    """200 steps of a drive of 1/256: in bf16, 0.5 + 1/256 would be rounded back to 0.5 and never reach 0.75."""
    x = torch.full((200, 3), 1 / 256, dtype=torch.bfloat16)
    layer = IF(0.75)
    spikes = layer(x)
    assert spikes.dtype == torch.bfloat16 and layer.v.dtype == torch.float32
    assert spikes.argmax(0).tolist() == [191] * 3  # the 192nd step makes 0.75
    assert spikes.sum(0).tolist() == [1.0] * 3


def test_a_hard_reset_starts_where_spikingjelly_starts():
    x = normal(6, 3, 4)
    node = neuron.IFNode(v_reset=-0.4, step_mode="m")
    assert torch.equal(IF(v_reset=-0.4)(x), node(x))
    assert torch.equal(IF(v_reset=-0.4, v_init=0.0).v_init, torch.tensor(0.0))


def test_step_bias_adds_to_the_drive_of_its_step():
    x, bias = normal(6, 3, 4), normal(6, 1, 4, seed=1)
    assert torch.equal(IF(0.7, step_bias=bias)(x), IF(0.7)(x + bias))
    assert torch.equal(IF(0.7, step_bias=0.25)(x), IF(0.7)(x + 0.25))
    with pytest.raises(ValueError, match="step_bias = 5 is not allowed: at least 6 steps"):
        IF(0.7, step_bias=bias[:5])(x)
