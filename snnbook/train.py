"""One training loop for every network of the book.

bf16 where the hardware computes it and there is much to train on, channels-last, cosine schedule with warm-up, label
smoothing, checkpoints that survive a kill at any moment, and the best weights by validation accuracy only. Under
``torchrun`` the same loop runs on several processes through Lightning Fabric.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import pandas as pd
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from .augment import augmentation
from .checks import check, check_choice
from .data import Data
from .evaluate import accuracy
from .fold import bf16_is_native, channels_last_is_safe, takes_channels_last

#: Seconds between checkpoints inside an epoch; each epoch's end writes one too.
CHECKPOINT_SECONDS = 300.0

#: Training samples from which ``precision="auto"`` may choose bf16. Smaller data sets train within minutes anyway, and
#: there numbers that depend less on the processor are worth more than speed.
MANY_SAMPLES = 10_000


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; part of the key of a cached network.

    Attributes:
        epochs: passes over the training split.
        batch_size: samples of one global batch.
        optimizer: sgd (Nesterov momentum) or adam.
        lr: peak learning rate.
        momentum: of sgd.
        weight_decay: on weights of convolutions and linear layers only.
        label_smoothing: of the cross-entropy.
        warmup: share of all steps with a linear warm-up.
        augment: comma-separated names in ``snnbook.augment`` or empty.
        loss: mean_logits (cross-entropy of logits averaged over T) or mean_loss (mean over T of cross-entropies).
        precision: fp32, bf16, or auto: bf16 where the hardware multiplies it, if there are ``MANY_SAMPLES`` samples.
        seed: order of samples, augmentation and dropout.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    warmup: float = 0.1
    augment: str = ""
    loss: str = "mean_logits"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        check("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        check("lr", self.lr, self.lr > 0, "a positive number")
        check("momentum", self.momentum, 0 <= self.momentum < 1, "0 to below 1")
        check("warmup", self.warmup, 0 <= self.warmup < 1, "0 to below 1")
        check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "0 to below 1")
        check_choice("optimizer", self.optimizer, ("sgd", "adam"))
        check_choice("loss", self.loss, ("mean_logits", "mean_loss"))
        check_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        if self.augment:
            augmentation(self.augment)


def pick_device(device: str = "auto") -> str:
    """``cuda`` if asked for or, with ``auto``, if there; else ``cpu``.

    Raises:
        ValueError: for cuda where there is none, or an unknown name.
    """
    check_choice("device", device, ("auto", "cpu", "cuda"))
    there = torch.cuda.is_available()
    check("device", device, device != "cuda" or there, "auto or cpu (no CUDA device is there)")
    return "cuda" if there and device != "cpu" else "cpu"


def make_fabric(device: str = "auto", precision: str = "auto") -> Fabric:
    """A Fabric for one process, or for all processes of ``torchrun`` when it started this one."""
    device = pick_device(device)
    bf16 = precision == "bf16" or (precision == "auto" and bf16_is_native(device))
    world = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    nodes = int(os.environ.get("WORLD_SIZE", 1)) // world
    fabric = Fabric(
        accelerator=device,
        devices=world,
        num_nodes=nodes,
        strategy="ddp" if world * nodes > 1 else "auto",
        precision="bf16-mixed" if bf16 else "32-true",
    )
    fabric.launch()
    return fabric


def memory_layout(net: nn.Module, device: torch.device, x: Tensor) -> torch.memory_format:
    """Channels last, which is faster, where it is safe and ``net`` takes a batch ``x`` so (:mod:`snnbook.fold`)."""
    safe = device.type != "cpu" or channels_last_is_safe(net)
    return torch.channels_last if safe and takes_channels_last(net, x) else torch.contiguous_format


def classification_loss(logits: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
    """Cross-entropy of logits [N, K] or [T, N, K] against labels [N]; see ``Recipe.loss``."""
    if logits.ndim == 3 and recipe.loss == "mean_logits":
        logits = logits.mean(0)
    elif logits.ndim == 3:
        y, logits = y.repeat(logits.shape[0]), logits.flatten(0, 1)
    return F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or Adam; weight decay on matrices and kernels, not on biases, norms and thresholds."""
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Factor on the peak rate at ``step`` of ``steps``: linear warm-up, then half a cosine towards 0."""
    warm = int(recipe.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class _State:
    """Everything that a killed run needs to go on: written whole or not at all."""

    def __init__(self, net, optimizer, recipe: Recipe, path: Path | None):
        self.net, self.optimizer, self.recipe, self.path = net, optimizer, recipe, path
        self.epoch, self.batch, self.loss_sum = 0, 0, 0.0
        self.best, self.best_accuracy, self.history = None, -1.0, []
        self._saved = time.monotonic()

    def _values(self) -> dict:
        names = ("epoch", "batch", "loss_sum", "best", "best_accuracy", "history")
        return {n: getattr(self, n) for n in names}

    def save(self, force: bool = False) -> None:
        if self.path is None or (not force and time.monotonic() - self._saved < CHECKPOINT_SECONDS):
            return
        self._saved = time.monotonic()
        content = {
            "recipe": asdict(self.recipe),
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self._values(),
        }
        part = self.path.with_suffix(f".{os.getpid()}.part")
        torch.save(content, part)
        os.replace(part, self.path)

    def load(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            self._check_sums()
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            same = content["recipe"] == asdict(self.recipe)
            check("checkpoint", str(self.path), same, "a checkpoint of the same recipe; remove it to start again")
            self.net.load_state_dict(content["net"])
            self.optimizer.load_state_dict(content["optimizer"])
            for name in self._values():
                setattr(self, name, content[name])
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, BadZipFile, pickle.UnpicklingError) as error:
            text = f"{self.path} is damaged or of another network ({error}); remove it to start again"
            raise ValueError(text) from error


    def _check_sums(self) -> None:
        """Refuse a checkpoint with a wrong bit: torch writes a ZIP file with checksums, but does not read them."""
        with ZipFile(self.path) as file:
            wrong = file.testzip()
        if wrong is not None:
            raise OSError(f"{wrong} in it has another checksum")


def _batches(data: Data, recipe: Recipe, epoch: int, fabric: Fabric) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch, the same whenever and on however many processes it runs."""
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    return data.batches(
        "train",
        recipe.batch_size,
        generator=generator,
        augment=augmentation(recipe.augment) if recipe.augment else None,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        device=fabric.device,
    )


def _epoch(
    state: _State, model: nn.Module, data: Data, fabric: Fabric, steps: int, layout: torch.memory_format
) -> None:
    """One pass from ``state.batch`` on.

    A last batch is left out that does not have two samples for each process: one alone has no variance to normalise by.
    """
    recipe, net = state.recipe, state.net
    per_epoch = steps // recipe.epochs
    model.train()
    bar = tqdm(total=per_epoch, initial=state.batch, desc=f"epoch {state.epoch + 1}/{recipe.epochs}",
               disable=not sys.stderr.isatty() or fabric.global_rank > 0, leave=False)  # fmt: skip
    for i, (x, y) in enumerate(_batches(data, recipe, state.epoch, fabric)):
        size = min(recipe.batch_size, len(data.train) - i * recipe.batch_size)
        enough = min(2 * fabric.world_size, recipe.batch_size) if i else fabric.world_size
        if i < state.batch or size < enough:
            continue
        step = state.epoch * per_epoch + i
        torch.manual_seed(recipe.seed * 100_003 + step)  # dropout: the same after a kill, on any device
        factor = learning_rate(step, steps, recipe)
        for group in state.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        if x.ndim == 4:
            x = x.contiguous(memory_format=layout)
        state.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over processes: weighted by its share, each sample counts the same.
        loss = classification_loss(model(x), y, recipe) * (len(y) * fabric.world_size / size)
        fabric.backward(loss)
        state.optimizer.step()
        loss = fabric.all_reduce(loss.detach(), reduce_op="mean")
        state.batch, state.loss_sum = i + 1, state.loss_sum + loss.item()
        bar.update()
        if fabric.global_rank == 0:
            state.save()
    bar.close()
    net.train(False)


def fit(
    net: nn.Module, data: Data, recipe: Recipe, *, checkpoint: Path | None = None, device: str = "auto"
) -> pd.DataFrame:
    """Train ``net`` in place and leave the weights with the best validation accuracy in it, in eval mode.

    Args:
        net: a network whose output is logits [N, K] or [T, N, K].
        data: its ``train`` and ``validation`` splits are used, nothing else.
        recipe: how.
        checkpoint: file to go on from and to write to; removed by nobody.
        device: auto, cpu or cuda.

    Returns:
        One row an epoch: ``epoch``, ``loss`` (mean over the batches), ``validation_accuracy`` (0 to 1).

    Raises:
        ValueError: for no training or validation samples, a checkpoint in a folder that is not there, a damaged one or
            one of another recipe, or a device that is not there.
    """
    for split in ("train", "validation"):
        check(f"data.{split}", len(getattr(data, split)), len(getattr(data, split)) > 0, "at least one sample")
    there = checkpoint is None or Path(checkpoint).parent.is_dir()
    check("checkpoint", str(checkpoint), there, "a file in a folder that is there")
    few = recipe.precision == "auto" and len(data.train) < MANY_SAMPLES
    fabric = make_fabric(device, "fp32" if few else recipe.precision)
    with torch.random.fork_rng(devices=[]):
        layout = memory_layout(net, fabric.device, next(data.batches("validation", 2))[0])
        net.to(memory_format=layout)
        model, optimizer = fabric.setup(net, make_optimizer(net, recipe))
        state = _State(net, optimizer, recipe, checkpoint)
        state.load()
        per_epoch = math.ceil(len(data.train) / recipe.batch_size)
        while state.epoch < recipe.epochs:
            _epoch(state, model, data, fabric, per_epoch * recipe.epochs, layout)
            state.epoch += 1
            found = fabric.broadcast(accuracy(net, data, "validation", device=fabric.device))
            state.history.append((state.epoch, state.loss_sum / per_epoch, found))
            if found > state.best_accuracy:
                state.best, state.best_accuracy = copy.deepcopy(net.state_dict()), found
            state.batch, state.loss_sum = 0, 0.0
            if fabric.global_rank == 0:
                state.save(force=True)
        net.load_state_dict(fabric.broadcast(state.best))
    net.to("cpu", memory_format=torch.contiguous_format).eval()
    return pd.DataFrame(state.history, columns=["epoch", "loss", "validation_accuracy"])
