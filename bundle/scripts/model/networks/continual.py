"""The growing network: a backbone, what each task adds to it, the merged adapters, and a head over all classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scripts.model.networks.adapted import EVERY, PLAIN, AdaptedBackbone
from scripts.model.networks.adapters import DYNAMMO, MERGED, Adapter
from scripts.model.networks.classifier import Classifier
from scripts.model.networks.expandable import make_backbone
from scripts.model.networks.heads import HEADS, Ability, require
from scripts.model.networks.merging import Merging, merge
from scripts.model.networks.outputs import Outputs
from scripts.utils.errors import UserError

START = "start"  # the branch of the first task's adapters before they learnt
ADAPTER_STARTS = ("previous", "first", "running_mean")


class ContinualNet(nn.Module):
    """A classifier that grows a task at a time.

    Args:
        backbone: see :func:`scripts.model.networks.backbones.find_backbone`.
        head: a name in :data:`scripts.model.networks.heads.HEADS`.
        adapter: what a task adds: a kind of adapter, or a whole backbone; ``None``: nothing.
        weights: pretrained weights of the backbone, a file or a name; ``None``: untrained.
        weights_sha256: digest of the weights file, or its first digits.
        sites: blocks that adapters stand at; ``None``: the published ones.
        levels: what a head of levels reads; see :class:`scripts.model.networks.adapted.AdaptedBackbone`.
        image_size: side of the images or volumes, in pixels, checked against what backbone and adapters need.
        seed: of an untrained backbone's first weights, and of a random projection.
        adapter_start: what a later task's adapters start from: those of the task before (``previous``), of the
            ``first`` task (ACMap, arXiv 2412.18219), or the mean of all so far (``running_mean``).

    Raises:
        UserError: for an unknown backbone, head or start, for images of a size that backbone or adapters cannot take,
            for adapters that cannot stand in the backbone or cannot start so, and where head ``concatenated`` has no
            backbone a task to read, or a backbone a task has neither it nor ``others``.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        head: str = "unified",
        adapter: Adapter | None = DYNAMMO,
        weights: str | None = None,
        weights_sha256: str | None = None,
        sites: Sequence[str] | None = None,
        levels: str | Sequence[str] = EVERY,
        image_size: int = 224,
        seed: int = 0,
        adapter_start: str = "previous",
    ) -> None:
        super().__init__()
        kind = HEADS.find(head)
        check_start(adapter_start, adapter)
        expands = adapter is not None and adapter.expands
        if kind.concatenates and not expands or expands and not (kind.concatenates or kind.apart):
            raise UserError(
                f"head 'concatenated' and a backbone a task need each other, but head is '{head}' and adapter is "
                f"'{adapter and adapter.kind}': give both, or head 'others' for a backbone a task (keys "
                "'network_def#head', 'adapter')"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone = make_backbone(
                backbone, adapter, sites, reads=kind.reads, levels=levels, image_size=image_size
            )
            self.head = kind(self.backbone.head_width)
        if weights is not None:
            self.backbone.load_pretrained(weights, weights_sha256)
        self.image_size = image_size
        self.head_name = head
        self.auxiliary: nn.Module | None = None
        self.classes: tuple[int, ...] = ()
        self.trained: tuple[str, ...] = ()
        self.adapter_start = adapter_start

    # -- growing ------------------------------------------------------------------------------------------------

    def grow(self, num_classes: int) -> None:
        """Make room in the head for a task of ``num_classes`` new classes."""
        self.classes = (*self.classes, num_classes)
        self.head.grow(num_classes)
        self.head.to(self._reference())

    def add_adapters(self) -> None:
        """Give the newest task its adapters, started as ``adapter_start`` says, and pass through them alone.

        What gathers (prompts, whole backbones) starts as its kind says, and is passed through beside all before.
        """
        newest = self._branch(-1)
        if newest in self.backbone.added():  # a further round goes on with them
            self.backbone.branches = [newest]
            return
        start = None if self.gathers else self._start_state()
        self.backbone.add_branch(newest)
        if start is not None:
            self.branch(newest).load_state_dict(start)
        self.backbone.branches = [*(self.backbone.branches if self.gathers else ()), newest]

    def _start_state(self) -> dict[str, Tensor] | None:
        """Return what the newest task's adapters start from, if there is something."""
        kept = self.adapter_branches()
        if self.adapter_start == "running_mean" and kept:
            alone = len(kept) < len(self.classes) - 1  # of the others only the mean is kept
            return self.branch_state(MERGED) if alone else merge([self.branch_state(name) for name in kept])
        name = self._branch(-2) if self.adapter_start == "previous" else "task0"
        return self.branch_state(name) if name in kept else None

    def keep_start(self) -> None:
        """Keep a copy of the first task's adapters, before they learn, as a base for merging."""
        if len(self.classes) == 1:
            self.backbone.add_branch(START)
            self.branch(START).load_state_dict(self.branch_state("task0"))
            self.branch(START).requires_grad_(False)

    def add_auxiliary(self, outputs: int) -> None:
        """Start a fresh auxiliary head of ``outputs`` classes on the newest branch."""
        self.stand(nn.Linear(self.backbone.last_width, outputs))

    def stand(self, auxiliary: nn.Module) -> None:
        """Let something on the newest branch's features [B, d] learn beside the head, in the auxiliary head's place."""
        self.auxiliary = auxiliary.to(self._reference())

    def start_auxiliary_from_head(self) -> None:
        """Copy the head's rows of the newest task into the auxiliary head, for a further round.

        Raises:
            UserError: when the head has no linear layer over all classes.
        """
        assert isinstance(self.auxiliary, nn.Linear)
        count, layer = self.classes[-1], self.linear_layer()
        if layer.in_features == self.auxiliary.in_features:
            with torch.no_grad():
                self.auxiliary.weight[:count] = layer.weight[-count:]
                self.auxiliary.bias[:count] = layer.bias[-count:]

    def drop_auxiliary(self) -> None:
        """Remove the auxiliary head."""
        self.auxiliary = None

    def start_head_from_auxiliary(self) -> None:
        """Copy the auxiliary head's rows of the newest task into the head."""
        assert isinstance(self.auxiliary, nn.Linear)
        self.head.start_from(self.auxiliary, self.classes[-1])

    def require(self, ability: Ability) -> None:
        """Refuse a head that lacks what a method asks for.

        Raises:
            UserError: names the heads that have it.
        """
        require(self.head_name, ability)

    def linear_layer(self) -> nn.Linear:
        """Return the linear layer over all classes; it is another one once the network has grown.

        Raises:
            UserError: when the head is another one.
        """
        self.require(Ability.LINEAR)
        return self.head.linear_layer()

    # -- adapters -----------------------------------------------------------------------------------------------

    def branch(self, name: str) -> nn.ModuleDict:
        """Return the adapters of a branch, by site."""
        return self.adapted().branch(name)

    def branch_state(self, name: str) -> dict[str, Tensor]:
        """Return the state dict of a branch's adapters."""
        return self.branch(name).state_dict()

    def mergeable_state(self, name: str) -> dict[str, Tensor]:
        """Return what a merging strategy reads of a branch: its state, or the products of low-rank adapters."""
        return self.adapted().mergeable(name)

    def adapter_branches(self) -> list[str]:
        """Return the tasks' branches with adapters of their own, in task order; what gathers is none."""
        if self.gathers:
            return []
        return [name for name in self.backbone.added() if not name.startswith((MERGED, START))]

    def merge(self, merging: Merging | None = None) -> None:
        """Merge the adapters of all tasks into one set; from here on a forward pass is one pass through it.

        Where tasks have groups it is a set and a pass a group, whose features are returned for each of its tasks.

        Args:
            merging: how; ``None``: the average.

        Raises:
            UserError: where the base or a statistic was not kept.
        """
        merging = merging or Merging()
        tasks, backbone, states = self.adapter_branches(), self.adapted(), self._task_states(merging)
        numbers = [] if merging.groups is None else merging.groups.of(len(states))
        names = [f"{MERGED}{number}" for number in numbers] or [MERGED] * len(states)
        merged = {}
        for name in dict.fromkeys(names):
            members = [task for task, own in enumerate(names) if own == name]
            merged[name] = merge([states[task] for task in members], merging, self._base(merging), members)
        if merging.row.running:
            backbone.drop_branches({*tasks[:-1]} - ({"task0"} if self.adapter_start == "first" else set()))
        backbone.drop_branches({*backbone.added()} - {*tasks, *merged, START})  # of groups that are no more
        for name, state in merged.items():
            backbone.add_branch(name)
            self.branch(name).load_state_dict(state)
        backbone.branches = names if numbers else [MERGED]

    def _task_states(self, merging: Merging) -> list[dict[str, Tensor]]:
        """Return what merging reads of each task, in order."""
        states = [self.mergeable_state(name) for name in self.adapter_branches()]
        if merging.row.running and MERGED in self.backbone.added():
            # the mean stands for each task that it is of: they weigh as one set a task does
            return [self.mergeable_state(MERGED)] * (len(self.classes) - 1) + states[-1:]
        if len(states) < len(self.classes):
            raise UserError(
                f"merging by '{type(merging.row).__name__}' needs the adapters of every task, but those of some are "
                "not kept"
            )
        return states

    def _base(self, merging: Merging) -> dict[str, Tensor] | None:
        if not merging.row.relative or merging.base == "first":
            return None
        if START not in self.backbone.added():
            raise UserError("the start of the first task's adapters was not kept: use --merging#base first")
        return self.mergeable_state(START)

    def unmerge(self) -> None:
        """Pass through the adapters of every task, one branch each."""
        self.backbone.branches = self.adapter_branches()

    def pass_through(self, branch: str) -> None:
        """Pass through one branch from here on, that of the plain backbone or of merged adapters."""
        self.backbone.branches = [branch]

    def tuned_classes(self) -> int:
        """Return how many classes the adapters of some task have learnt from, those of the tasks before it included."""
        tasks = range(len(self.classes), 0, -1)
        return next((sum(self.classes[:task]) for task in tasks if f"task{task - 1}" in self.backbone.added()), 0)

    @contextmanager
    def through(self, branches: Sequence[str]) -> Iterator[None]:
        """Pass through other branches for a while."""
        before, self.backbone.branches = self.backbone.branches, list(branches)
        try:
            yield
        finally:
            self.backbone.branches = before

    # -- training -----------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the modules that a stage can train, by name."""
        return {
            "backbone": self.backbone.base(),
            "adapter": self.backbone.learning(self._branch(-1)),
            "auxiliary": [] if self.auxiliary is None else [self.auxiliary],
            "head": [self.head],
            "new_rows": self.head.newest(),
        }

    def train_only(self, names: Sequence[str]) -> None:
        """Let the parts called ``names`` learn, and freeze everything else, BatchNorm's statistics included."""
        self.trained = tuple(names)
        self.requires_grad_(False)
        for module in self._trained_modules():
            module.requires_grad_(True)

    def train(self, mode: bool = True) -> ContinualNet:
        """Put what learns into training mode; what is frozen stays in evaluation mode (MONAI calls this each step)."""
        super().train(False)
        self.training = mode
        for module in self._trained_modules():
            module.train(mode)
        return self

    def trained_state(self) -> dict[str, Tensor]:
        """Return the entries of the state dict that the running stage can change, buffers included."""
        modules = {id(module) for module in self._trained_modules()}
        prefixes = tuple(f"{name}." for name, module in self.named_modules() if id(module) in modules)
        return {key: value for key, value in self.state_dict().items() if key.startswith(prefixes)}

    def forward(self, images: Tensor) -> Outputs:
        """Map normalised images [B, 3, H, W], or volumes [B, 1, D, H, W], to :class:`Outputs`."""
        return self.above_stem(self.backbone.below_adapters(images))

    def above_stem(self, stem: Tensor) -> Outputs:
        """Map what stands before the first adapter to :class:`Outputs`."""
        said = self.outputs(*self.backbone.above_stem(stem))
        extras = said.extras | self.backbone.extras(stem)
        return replace(said, extras=extras, penalties=self.backbone.penalties(stem))

    def outputs(self, features: Tensor, maps: Sequence[Tensor] = ()) -> Outputs:
        """Map features [B, R, d] to :class:`Outputs`; the maps are only handed on."""
        return Outputs(
            logits=self.head(features),
            features=features,
            maps=list(maps),
            classes=self.classes,
            auxiliary=None if self.auxiliary is None else self.auxiliary(features[:, -1, : self.backbone.last_width]),
            extras=self.head.extras(features),
        )

    def embedding(self, features: Tensor) -> Tensor:
        """Map features [N, R, d] to what herding reads, [N, D]."""
        return self.head.embedding(features)

    # -- in and out ---------------------------------------------------------------------------------------------

    def structure(self) -> dict[str, list[Any]]:
        """Say how far the network has grown."""
        return {
            "classes": list(self.classes),
            "adapters": list(self.backbone.added()),
            "branches": list(self.backbone.branches),
        }

    def load_grown(self, structure: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Grow an ungrown network as ``structure`` says and load its weights."""
        for num_classes in structure["classes"]:
            self.grow(num_classes)
        for branch in structure["adapters"]:
            self.backbone.add_branch(branch)
        self.backbone.branches = list(structure["branches"])
        self.load_state_dict(weights)

    def description(self) -> dict[str, Any]:
        """Return what :class:`Classifier` needs to be built, tasks apart; low-rank adapters are folded away in it."""
        adapter = None if self.folds else self.backbone.adapter
        return {
            "backbone": self.backbone.name,
            "head": self.head_name,
            "adapter": adapter and adapter.record(),
            "branches": [PLAIN] if self.folds else list(self.backbone.branches),
            "sites": list(self.backbone.sites),
            "levels": list(self.backbone.levels) or EVERY,
        }

    @property
    def gathers(self) -> bool:
        """Whether a pass goes through what all tasks added, rather than through what one did, or their merge."""
        return self.backbone.adapter is not None and self.backbone.adapter.gathers

    def settled_branches(self) -> list[str]:
        """Return the branches that a pass went through before the newest task's learnt."""
        if self.gathers:
            return [name for name in self.backbone.branches if name != self._branch(-1)]
        return [MERGED]

    @property
    def folds(self) -> bool:
        """Whether the adapters are added to the backbone's weights when it is exported."""
        return self.backbone.adapter is not None and self.backbone.adapter.folds

    def merge_and_unload(self, tasks: Sequence[Mapping[str, Any]]) -> Classifier:
        """Return the plain network for inference: only the branches in use, no auxiliary head.

        Low-rank adapters are added to the copy's weights, so that it is the backbone without adapters.

        Args:
            tasks: ``[{"name": ..., "classes": [...]}, ...]`` learnt so far.

        Raises:
            UserError: when there are low-rank adapters in several branches.
        """
        classifier = Classifier(tasks=tasks, image_size=self.image_size, **self.description())
        own = self.state_dict()
        if self.folds:
            own |= {f"backbone.{key}": value for key, value in self.adapted().folded().items()}
        classifier.load_state_dict({key: own[key] for key in classifier.state_dict()})
        return classifier.eval()

    def kept_bytes(self) -> int:
        """Return the bytes of what the tasks added: adapters for the next merge, whole backbones."""
        added = [own for name, own in self.backbone.added().items() if not name.startswith(MERGED)]
        modules = [module for own in added for module in own]
        tensors = [tensor for module in modules for tensor in module.state_dict().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _branch(self, task: int) -> str:
        """Name the branch of the newest task (-1) or of the one before it (-2)."""
        return f"task{len(self.classes) + task}"

    def adapted(self) -> AdaptedBackbone:
        """Return the backbone of a network whose branches are sets of adapters."""
        assert isinstance(self.backbone, AdaptedBackbone)
        return self.backbone

    def _trained_modules(self) -> list[nn.Module]:
        parts = self.parts()
        return [module for name in self.trained for module in parts[name]]

    def _reference(self) -> Tensor:
        return next(self.backbone.parameters())


class NetworkState:
    """What a checkpoint holds of a growing network: how far it has grown, beside its weights.

    Args:
        network: the network; ungrown when a state is loaded.
    """

    def __init__(self, network: ContinualNet) -> None:
        self.network = network

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and the weights, for a checkpoint that is loaded with ``weights_only``."""
        return {"structure": self.network.structure(), "weights": self.network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Grow, and take over the weights."""
        self.network.load_grown(state["structure"], state["weights"])

    def running_state(self) -> dict[str, Tensor]:
        """Return the entries that the running stage can change."""
        return self.network.trained_state()

    def load_running_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`running_state` returned."""
        self.network.load_state_dict(state, strict=False)


class FeatureReader(nn.Module):
    """The network above its features, to train where nothing below learns.

    Args:
        network: the whole, which is trained in place.
    """

    def __init__(self, network: ContinualNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Outputs:
        """Map features [B, R, d] to :class:`Outputs`, without maps."""
        return self.network.outputs(features)


class StemMapReader(nn.Module):
    """The network from the first adapter on, to train where the maps before it are known.

    Args:
        network: the whole, which is trained in place.
    """

    def __init__(self, network: ContinualNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, stem: Tensor) -> Outputs:
        """Map the maps before the first adapter, [B, c, H, W], to :class:`Outputs`."""
        return self.network.above_stem(stem)


def check_start(start: str, adapter: Adapter | None) -> None:
    """Refuse an unknown start of adapters, and one that these adapters cannot have.

    Raises:
        UserError: says which.
    """
    if start not in ADAPTER_STARTS:
        known = ", ".join(ADAPTER_STARTS)
        raise UserError(f"unknown adapter start '{start}': choose one of {known} (key 'network_def#adapter_start')")
    if adapter is not None:
        adapter.check_start(start)
