"""A module as one safetensors file: weights, and beside them its structure as JSON. No pickle.

The structure is rebuilt from classes on a list only, so that a file from elsewhere can name nothing else:

    {"class": "Conv2d", "options": {"in_channels": 3, ...}, "children": {name: {"class": ...}, ...}}

Classes of this package come with their module ("snnbook.neurons:LIF"), which is imported when a file asks for it; they
still have to be registered there. Those of other packages than PyTorch come with the package's name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from spikingjelly.activation_based import layer, surrogate
from torch import Tensor, nn

from .checks import check
from .network import Network, Residual
from .neurons import IF, LIF
from .runs import atomic

FORMAT = 1
_OWN = re.compile(r"snnbook(\.\w+)+")

Describe = Callable[[nn.Module], dict]
Build = Callable[[dict, dict[str, nn.Module]], nn.Module]


class Entry(NamedTuple):
    """How a class is described and built again."""

    cls: type[nn.Module]
    describe: Describe
    build: Build


_known: dict[str, Entry] = {}


def _name(cls: type) -> str:
    """Name of a class in a file: bare for PyTorch's, with the module for this package's, else with the package."""
    package = cls.__module__ if _OWN.fullmatch(cls.__module__) else cls.__module__.partition(".")[0]
    return cls.__qualname__ if package == "torch" else f"{package}:{cls.__qualname__}"


def register(cls: type[nn.Module], describe: Describe | None = None, build: Build | None = None) -> type[nn.Module]:
    """Put a class on the list of what files may hold.

    Args:
        cls: the class; exactly it, not what derives from it.
        describe: module → its constructor arguments as JSON values, without children and weights; none by default.
        build: ``(options, children)`` → module, with weights of the right shapes but any value; by default
            ``cls(**options, **children)``. Lists of the file arrive as tuples.

    Returns:
        ``cls``, so that it can decorate a class without options.

    Raises:
        ValueError: if another class is registered under the name.
    """
    name = _name(cls)
    other = _known[name].cls if name in _known else cls
    same = (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__)
    check("cls", name, same, f"a name that {other.__module__} has not taken")
    _known[name] = Entry(cls, describe or (lambda m: {}), build or (lambda o, c: cls(**o, **c)))
    return cls


def _attributes(*names: str) -> Describe:
    """Describe a module by attributes that are named as its constructor arguments; ``bias`` is whether it has one."""
    return lambda m: {n: m.bias is not None if n == "bias" else getattr(m, n) for n in names}


def _shape(value: Tensor | None) -> list[int] | None:
    return None if value is None else list(value.shape)


#: Types of spikes by their names in a file.
_SPIKES = {
    None: None,
    "uint8": torch.uint8,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


def _describe_neuron(m: IF | LIF) -> dict:
    """Every constant; of the tensors v_init and step_bias the shape, since their values are part of the state."""
    names = ("v_threshold", "v_reset", "detach_reset", "emit", "step_mode", "time_steps")
    names += ("tau", "decay_input") if isinstance(m, LIF) else ()
    check("spike_dtype", m.spike_dtype, m.spike_dtype in _SPIKES.values(), f"one of {', '.join(map(str, _SPIKES))}")
    dtype = next(name for name, dtype in _SPIKES.items() if dtype == m.spike_dtype)
    extra = {"v_init": _shape(m.v_init), "step_bias": _shape(m.step_bias), "spike_dtype": dtype}
    return {n: getattr(m, n) for n in names} | extra


def _build_neuron(cls: type[IF | LIF]) -> Build:
    def build(options: dict, children: dict[str, nn.Module]) -> nn.Module:
        dtype, time_steps = options.pop("spike_dtype"), options.pop("time_steps")
        for name in ("v_init", "step_bias"):
            options[name] = None if options[name] is None else torch.zeros(options[name])
        neuron = cls(**options, **children)
        neuron.time_steps = time_steps
        neuron.spike_dtype = _SPIKES[dtype]
        return neuron

    return build


def _build_network(options: dict, children: dict[str, nn.Module]) -> Network:
    net = Network(**children)
    net.time_steps = options["time_steps"]
    return net


def _register_layers() -> None:
    """The layers of PyTorch and SpikingJelly that networks of the book are made of."""
    norm = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    conv = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias")
    for cls, names in {
        nn.Conv2d: (*conv, "padding_mode"),
        nn.ConvTranspose2d: (*conv, "output_padding", "padding_mode"),
        nn.Linear: ("in_features", "out_features", "bias"),
        nn.BatchNorm2d: norm,
        layer.ThresholdDependentBatchNorm2d: ("alpha", "v_th", *norm),
        nn.AvgPool2d: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
        nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"),
        nn.AdaptiveAvgPool2d: ("output_size",),
        nn.Flatten: ("start_dim", "end_dim"),
        nn.Unflatten: ("dim", "unflattened_size"),
        nn.Dropout: ("p", "inplace"),
        nn.ReLU: ("inplace",),
        nn.Identity: (),
        nn.Sigmoid: (),
    }.items():
        register(cls, _attributes(*names))
    register(nn.Sequential, build=lambda _, children: nn.Sequential(OrderedDict(children)))
    register(nn.ModuleList, build=lambda _, children: nn.ModuleList(children.values()))
    for cls in vars(surrogate).values():
        binary = isinstance(cls, type) and cls is not surrogate.MultiLevelSpikeCount
        if binary and surrogate.SurrogateFunctionBase in cls.__mro__[1:]:
            register(cls, _attributes(*list(signature(cls).parameters)))


_register_layers()
register(Network, _attributes("time_steps"), _build_network)
register(Residual)
for _cls in (IF, LIF):
    register(_cls, _describe_neuron, _build_neuron(_cls))


def describe(module: nn.Module) -> dict:
    """The structure of a module, without weights, as JSON values.

    Raises:
        ValueError: for a class that is not registered, or a module that is in the tree twice.
    """
    return _describe(module, set())


def _describe(module: nn.Module, seen: set[int]) -> dict:
    name = _name(type(module))
    known = name in _known and _known[name].cls is type(module)
    check("module", name, known, "a class that snnbook.store knows; register others with store.register")
    check("module", name, id(module) not in seen, "a tree in which no module is used twice")
    seen.add(id(module))
    children = {n: None if m is None else _describe(m, seen) for n, m in module._modules.items()}
    return {"class": name, "options": _known[name].describe(module), "children": children}


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _entry(name: str) -> Entry:
    own = name.partition(":")[0]
    if name not in _known and _OWN.fullmatch(own):
        try:
            import_module(own)
        except ImportError as error:
            raise ValueError(f"class {name!r} is not there: {error}") from error
    check("class", name, name in _known, f"one of {', '.join(sorted(_known))}")
    return _known[name]


def build(structure: dict) -> nn.Module:
    """The module of a structure, its weights still without values (on the device ``meta``).

    Raises:
        ValueError: for an unknown class, or options that its class refuses.
    """
    try:
        with torch.device("meta"):
            return _build(structure)
    except (TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"no structure of modules: {type(error).__name__}: {error}") from error


def _build(node: dict | None) -> nn.Module | None:
    if node is None:
        return None
    entry = _entry(node["class"])
    children = {name: _build(child) for name, child in node["children"].items()}
    return entry.build({name: _tuples(value) for name, value in node["options"].items()}, children)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module as a file holds them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}


def digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of tensors."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}\n".encode())
        found.update(state[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def save(path: Path | str, module: nn.Module, about: dict | None = None) -> Path:
    """Write a module to one file, whole or not at all. The same module makes the same bytes.

    Args:
        path: the file, by custom ``*.safetensors``.
        module: a tree of registered classes; training mode, hooks and gradients are not kept.
        about: anything that JSON holds, for the reader of the file.

    Returns:
        ``path``.

    Raises:
        ValueError: for a class that is not registered, a module or weight that is used twice, a buffer that its
            module does not keep in its state, or an ``about`` that is no JSON.
    """
    path, state = Path(path), weights(module)
    left = [n for n, _ in (*module.named_buffers(), *module.named_parameters()) if n not in state]
    check("module", left, not left, "without tensors outside its state_dict")
    each = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    check("module", type(module).__name__, len(each) == len(set(each)), "without shared weights")
    head = {"format": FORMAT, "structure": describe(module), "about": about or {}, "sha256": digest(state)}
    try:
        text = json.dumps(head, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"about = {about!r} is not allowed: JSON values ({error})") from error
    with atomic(path) as part:
        save_file(state, part, {"snnbook": text})
    return path


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("snnbook")
        check("metadata", text, text is not None, "a file that snnbook.store wrote")
        # Copies lie where PyTorch aligns them; sums over a matrix in the file's own memory round differently.
        return json.loads(text), {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def load(path: Path | str) -> tuple[nn.Module, dict]:
    """Read a module back.

    Args:
        path: a file that :func:`save` wrote.

    Returns:
        ``(module, about)``, the module in eval mode on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or foreign, or holds classes that are not registered; it names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        head, state = _read(path)
        check("format", head["format"], head["format"] == FORMAT, f"{FORMAT}, the only one so far")
        found = digest(state)
        check("sha256", found[:12], found == head["sha256"], f"{head['sha256'][:12]}… as when it was written")
        module = build(head["structure"])
        module.load_state_dict(state, assign=True)
        return module.eval(), dict(head["about"])
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or no module of snnbook.store ({error})") from error
