"""The growing network: a backbone, what each task adds to it, the merged adapters, and a head over all classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from scripts.errors import UserError
from scripts.networks.adapters import LOW_RANK, MERGED
from scripts.networks.backbones import check_backbone, normalisation
from scripts.networks.classifier import PLAIN, RANK, SCALE, WHOLE, AdaptedBackbone, Classifier, make_backbone
from scripts.networks.heads import ConcatenatedHead, CosineHead, NearestMeanHead, OthersHead, UnifiedHead, find_head
from scripts.networks.merging import STRATEGIES, MergingOptions, merge
from scripts.networks.outputs import Outputs

START = "start"  # the branch of the first task's adapters before they learnt
ADAPTER_STARTS = ("previous", "first", "running_mean")


class ContinualNet(nn.Module):
    """A classifier that grows a task at a time.

    Args:
        backbone: a name in :data:`scripts.networks.backbones.SITES`.
        head: a name in :data:`scripts.networks.heads.HEADS`.
        adapter: a name in :data:`scripts.networks.adapters.ADAPTERS`; ``"lora"``: low-rank changes of the layers;
            ``"backbone"``: a task adds a whole backbone; ``None``: it adds nothing.
        weights: pretrained weights of the backbone, a file or a torchvision name; ``None``: untrained.
        weights_sha256: digest of the weights file, or its first digits.
        sites: blocks an adapter stands before; ``None``: the published ones.
        image_size: side of the images or volumes, in pixels, checked against what the adapters need.
        seed: of an untrained backbone's first weights, and of a random projection.
        adapter_rank: of low-rank adapters (``lora``).
        adapter_scale: of low-rank adapters; see :class:`scripts.networks.low_rank.LowRankChange`.
        adapter_start: what a later task's adapters start from: those of the task before (``previous``), of the
            ``first`` task (ACMap, arXiv 2412.18219), or the mean of all so far (``running_mean``).

    Raises:
        UserError: for an unknown backbone, head, adapter or start, for images too small for the adapters, where only
            one of head ``concatenated`` and adapter ``"backbone"`` is given, and for low-rank adapters that are to
            start from a mean, which has no low rank.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        head: str = "unified",
        adapter: str | None = "conv",
        weights: str | None = None,
        weights_sha256: str | None = None,
        sites: Sequence[str] | None = None,
        image_size: int = 224,
        seed: int = 0,
        adapter_rank: int = RANK,
        adapter_scale: float = SCALE,
        adapter_start: str = "previous",
    ) -> None:
        super().__init__()
        check_backbone(backbone)
        kind = find_head(head)
        check_start(adapter_start, adapter)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone = make_backbone(
                backbone, sites, adapter, reads=kind.reads, rank=adapter_rank, scale=adapter_scale
            )
            self.head = kind(self.backbone.head_width)
        self.backbone.check_image_size(image_size)
        self.image_size = image_size
        if weights is not None:
            self.backbone.load_pretrained(weights, weights_sha256)
        self.head_name = head
        if isinstance(self.head, ConcatenatedHead) != (adapter == WHOLE):
            raise UserError(
                f"head 'concatenated' and adapter '{WHOLE}' need each other, but head is '{head}' and adapter is "
                f"'{adapter}': give both or neither (keys 'network_def#head', 'adapter#kind')"
            )
        self.auxiliary: nn.Linear | None = None
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
        """Give the newest task its adapters, started as ``adapter_start`` says, and pass through them alone."""
        newest = self._branch(-1)
        start = self._start_state()
        self.backbone.add_branch(newest)
        if start is not None:
            self.branch(newest).load_state_dict(start)
        self.backbone.branches = [newest]

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

    def add_backbone(self) -> None:
        """Give the newest task a backbone, a copy of the newest one, and pass through all of them."""
        newest = self._branch(-1)
        self.backbone.add_branch(newest)
        self.backbone.branches = [*self.backbone.branches, newest]

    def add_auxiliary(self, outputs: int) -> None:
        """Start a fresh auxiliary head of ``outputs`` classes on the newest branch."""
        self.auxiliary = nn.Linear(self.backbone.last_width, outputs).to(self._reference())

    def drop_auxiliary(self) -> None:
        """Remove the auxiliary head."""
        self.auxiliary = None

    def start_head_from_auxiliary(self) -> None:
        """Copy the auxiliary head's rows of the newest task into the head."""
        assert self.auxiliary is not None
        self.head.start_from(self.auxiliary, self.classes[-1])

    def check_one_head(self) -> None:
        """Refuse a head a task.

        Raises:
            UserError: names the head.
        """
        if isinstance(self.head, OthersHead):
            raise UserError(
                f"this method needs one head over all classes, not '{self.head_name}' (key 'network_def#head')"
            )

    def linear_layer(self) -> nn.Linear:
        """Return the linear layer over all classes; it is another one once the network has grown.

        Raises:
            UserError: when the head is another one.
        """
        if not isinstance(self.head, UnifiedHead):
            raise UserError(
                f"this method needs one linear layer over all classes, not '{self.head_name}' (key 'network_def#head')"
            )
        return self.head.linear

    # -- adapters -----------------------------------------------------------------------------------------------

    def branch(self, name: str) -> nn.ModuleDict:
        """Return the adapters of a branch, by site."""
        return self._adapted().branch(name)

    def branch_state(self, name: str) -> dict[str, Tensor]:
        """Return the state dict of a branch's adapters."""
        return self.branch(name).state_dict()

    def mergeable_state(self, name: str) -> dict[str, Tensor]:
        """Return what a merging strategy reads of a branch: its state, or the products of low-rank adapters."""
        return self._adapted().mergeable(name)

    def adapter_branches(self) -> list[str]:
        """Return the tasks' branches with adapters of their own, in task order; a whole backbone is none."""
        if self.backbone.adapter == WHOLE:
            return []
        return [name for name in self.backbone.added() if name not in (MERGED, START)]

    def merge(self, options: MergingOptions | None = None) -> None:
        """Merge the adapters of all tasks into one set; from here on a forward pass is one pass through it.

        Args:
            options: how; ``None``: the average.

        Raises:
            UserError: where the base or a statistic was not kept.
        """
        options = options or MergingOptions()
        running = STRATEGIES[options.strategy].running
        tasks, backbone = self.adapter_branches(), self._adapted()
        states = [self.mergeable_state(name) for name in tasks]
        if running and MERGED in backbone.added():
            # the mean stands for each task that it is of: they weigh as one set a task does
            states = [self.mergeable_state(MERGED)] * (len(self.classes) - 1) + states[-1:]
        elif len(tasks) < len(self.classes):
            raise UserError(
                f"merging by '{options.strategy}' needs the adapters of every task, but those of some are not kept"
            )
        merged = merge(states, options, self._base(options))
        if running:
            backbone.drop_branches({*tasks[:-1]} - ({"task0"} if self.adapter_start == "first" else set()))
        backbone.add_branch(MERGED)
        self.branch(MERGED).load_state_dict(merged)
        backbone.branches = [MERGED]

    def _base(self, options: MergingOptions) -> dict[str, Tensor] | None:
        if not STRATEGIES[options.strategy].relative or options.base == "first":
            return None
        if START not in self.backbone.added():
            raise UserError("the start of the first task's adapters was not kept: use --merging#base first")
        return self.mergeable_state(START)

    def unmerge(self) -> None:
        """Pass through the adapters of every task, one branch each."""
        self.backbone.branches = self.adapter_branches()

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
            "adapter": self.backbone.added().get(self._branch(-1), []),
            "auxiliary": [] if self.auxiliary is None else [self.auxiliary],
            "head": [self.head],
            "new_rows": self.head.newest() if isinstance(self.head, CosineHead) else [],
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
        return self.outputs(*self.backbone.features_and_maps(images))

    def outputs(self, features: Tensor, maps: Sequence[Tensor] = ()) -> Outputs:
        """Map features [B, R, d] to :class:`Outputs`; the maps are only handed on."""
        head = self.head
        return Outputs(
            logits=head(features),
            features=features,
            auxiliary=None if self.auxiliary is None else self.auxiliary(features[:, -1, : self.backbone.last_width]),
            task_logits=head.task_logits(features) if isinstance(head, OthersHead) else [],
            others=head.others_probability(features) if isinstance(head, OthersHead) else None,
            classes=self.classes,
            softmax=head.linear(features.flatten(1)) if isinstance(head, NearestMeanHead) else None,
            cosines=head.cosines(features) if isinstance(head, CosineHead) else None,
            maps=list(maps),
        )

    def embedding(self, features: Tensor) -> Tensor:
        """Map features [N, R, d] to what herding reads: of all branches, [N, R d]; with a head a task the newest's."""
        return features[:, -1] if isinstance(self.head, OthersHead) else features.flatten(1)

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
        return {
            "backbone": self.backbone.name,
            "head": self.head_name,
            "adapter": None if self.folds else self.backbone.adapter,
            "branches": [PLAIN] if self.folds else list(self.backbone.branches),
            "sites": list(self.backbone.sites),
        }

    @property
    def folds(self) -> bool:
        """Whether the adapters are added to the backbone's weights when it is exported."""
        return self.backbone.adapter == LOW_RANK

    def merge_and_unload(self, tasks: Sequence[Mapping[str, Any]]) -> Classifier:
        """Return the plain network for inference: only the branches in use, no auxiliary head.

        Low-rank adapters are added to the copy's weights, so that it is the backbone without adapters.

        Args:
            tasks: ``[{"name": ..., "classes": [...]}, ...]`` learnt so far.

        Raises:
            UserError: when there are low-rank adapters in several branches.
        """
        classifier = Classifier(tasks=tasks, **self.description())
        own = self.state_dict()
        if self.folds:
            own |= {f"backbone.{key}": value for key, value in self._adapted().folded().items()}
        classifier.load_state_dict({key: own[key] for key in classifier.state_dict()})
        return classifier.eval()

    def kept_bytes(self) -> int:
        """Return the bytes of what the tasks added: adapters for the next merge, whole backbones."""
        modules = [module for name, added in self.backbone.added().items() if name != MERGED for module in added]
        tensors = [tensor for module in modules for tensor in module.state_dict().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Return the mean and standard deviation that images are normalised with, by backbone."""
        return normalisation(self.backbone.name)

    def _branch(self, task: int) -> str:
        """Name the branch of the newest task (-1) or of the one before it (-2)."""
        return f"task{len(self.classes) + task}"

    def _adapted(self) -> AdaptedBackbone:
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
        backbone: Any = self.network.backbone
        return self.network.outputs(*backbone.above_stem(stem))


def check_start(start: str, adapter: str | None) -> None:
    """Refuse an unknown start of adapters, and one that these adapters cannot have.

    Raises:
        UserError: says which.
    """
    if start not in ADAPTER_STARTS:
        known = ", ".join(ADAPTER_STARTS)
        raise UserError(f"unknown adapter start '{start}': choose one of {known} (key 'network_def#adapter_start')")
    if start == "running_mean" and adapter == LOW_RANK:
        raise UserError(
            f"adapters '{LOW_RANK}' cannot start from a running mean, since a mean of products has no low rank: use "
            "'previous' or 'first' (key 'network_def#adapter_start')"
        )


__all__ = [
    "ADAPTER_STARTS",
    "MERGED",
    "PLAIN",
    "START",
    "ContinualNet",
    "FeatureReader",
    "NetworkState",
    "StemMapReader",
]
