"""The growing network: a backbone, what each task adds to it, the merged adapters, and a head over all classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from scripts.errors import UserError
from scripts.networks.backbones import check_backbone, normalisation
from scripts.networks.classifier import PLAIN, WHOLE, Classifier, make_backbone
from scripts.networks.heads import ConcatenatedHead, CosineHead, NearestMeanHead, OthersHead, UnifiedHead, find_head
from scripts.networks.merging import merge
from scripts.networks.outputs import Outputs

MERGED = "merged"


class ContinualNet(nn.Module):
    """A classifier that grows a task at a time.

    Args:
        backbone: a name in :data:`scripts.networks.backbones.SITES`.
        head: a name in :data:`scripts.networks.heads.HEADS`.
        adapter: a name in :data:`scripts.networks.adapters.ADAPTERS`; ``"backbone"``: a task adds a whole backbone;
            ``None``: it adds nothing.
        weights: pretrained weights of the backbone, a file or a torchvision name; ``None``: untrained.
        weights_sha256: digest of the weights file, or its first digits.
        sites: blocks an adapter stands before; ``None``: the published ones.
        image_size: side of the images or volumes, in pixels, checked against what the adapters need.
        seed: of an untrained backbone's first weights, and of a random projection.

    Raises:
        UserError: for an unknown backbone, head or adapter, for images too small for the adapters, and where only one
            of head ``concatenated`` and adapter ``"backbone"`` is given.
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
    ) -> None:
        super().__init__()
        check_backbone(backbone)
        kind = find_head(head)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone = make_backbone(backbone, sites, adapter, signed=kind.signed_features)
            self.head = kind(self.backbone.width)
        self.backbone.check_image_size(image_size)
        if weights is not None:
            self.backbone.load_pretrained(weights, weights_sha256)
        self.head_name = head
        if isinstance(self.head, ConcatenatedHead) != (adapter == WHOLE):
            raise UserError(
                f"head 'concatenated' and adapter '{WHOLE}' need each other, but head is '{head}' and adapter is "
                f"'{adapter}': give both or neither (keys 'head', 'adapter')"
            )
        self.auxiliary: nn.Linear | None = None
        self.classes: tuple[int, ...] = ()
        self.trained: tuple[str, ...] = ()

    # -- growing ------------------------------------------------------------------------------------------------

    def grow(self, num_classes: int) -> None:
        """Make room in the head for a task of ``num_classes`` new classes."""
        self.classes = (*self.classes, num_classes)
        self.head.grow(num_classes)
        self.head.to(self._reference())

    def add_adapters(self) -> None:
        """Give the newest task its adapters, started from those of the task before, and pass through them alone."""
        newest, previous = self._branch(-1), self._branch(-2)
        self.backbone.add_branch(newest)
        added = self.backbone.added()
        if previous in added:
            for new, old in zip(added[newest], added[previous], strict=True):
                new.load_state_dict(old.state_dict())
        self.backbone.branches = [newest]

    def add_backbone(self) -> None:
        """Give the newest task a backbone, a copy of the newest one, and pass through all of them."""
        newest = self._branch(-1)
        self.backbone.add_branch(newest)
        self.backbone.branches = [*self.backbone.branches, newest]

    def add_auxiliary(self, outputs: int) -> None:
        """Start a fresh auxiliary head of ``outputs`` classes on the newest branch."""
        self.auxiliary = nn.Linear(self.backbone.width, outputs).to(self._reference())

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
            raise UserError(f"this method needs one head over all classes, not '{self.head_name}' (key 'head')")

    def linear_layer(self) -> nn.Linear:
        """Return the linear layer over all classes; it is another one once the network has grown.

        Raises:
            UserError: when the head is another one.
        """
        if not isinstance(self.head, UnifiedHead):
            raise UserError(f"this method needs one linear layer over all classes, not '{self.head_name}' (key 'head')")
        return self.head.linear

    # -- adapters -----------------------------------------------------------------------------------------------

    def adapter_branches(self) -> list[str]:
        """Return the branches with adapters of their own, in task order; a whole backbone is none."""
        return [] if self.backbone.adapter == WHOLE else [name for name in self.backbone.added() if name != MERGED]

    def merge(self, strategy: str) -> None:
        """Merge the adapters of all tasks into one set; from here on a forward pass is one pass through it."""
        tasks = self.adapter_branches()
        self.backbone.add_branch(MERGED)
        added = self.backbone.added()
        for merged, *own in zip(added[MERGED], *(added[name] for name in tasks), strict=True):
            merged.load_state_dict(merge(strategy, [adapter.state_dict() for adapter in own]))
        self.backbone.branches = [MERGED]

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
            auxiliary=None if self.auxiliary is None else self.auxiliary(features[:, -1]),
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

    def structure(self) -> dict[str, Any]:
        """Say how far the network has grown: what a checkpoint needs beside the weights."""
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
        """Return what :class:`Classifier` needs to be built, tasks apart."""
        return {
            "backbone": self.backbone.name,
            "head": self.head_name,
            "adapter": self.backbone.adapter,
            "branches": list(self.backbone.branches),
            "sites": list(self.backbone.sites),
        }

    def merge_and_unload(self, tasks: Sequence[Mapping[str, Any]]) -> Classifier:
        """Return the plain network for inference: only the branches in use, no auxiliary head.

        Args:
            tasks: ``[{"name": ..., "classes": [...]}, ...]`` learnt so far.
        """
        classifier = Classifier(tasks=tasks, **self.description())
        own = self.state_dict()
        classifier.load_state_dict({key: own[key] for key in classifier.state_dict()})
        return classifier.eval()

    def kept_bytes(self) -> int:
        """Return the bytes of what the tasks added: of adapters kept for the next merge or pass, of whole backbones."""
        modules = [module for name, added in self.backbone.added().items() if name != MERGED for module in added]
        tensors = [tensor for module in modules for tensor in module.state_dict().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Return the mean and standard deviation that images are normalised with, by backbone."""
        return normalisation(self.backbone.name)

    def _branch(self, task: int) -> str:
        """Name the branch of the newest task (-1) or of the one before it (-2)."""
        return f"task{len(self.classes) + task}"

    def _trained_modules(self) -> list[nn.Module]:
        parts = self.parts()
        return [module for name in self.trained for module in parts[name]]

    def _reference(self) -> Tensor:
        return next(self.backbone.parameters())


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


__all__ = ["MERGED", "PLAIN", "ContinualNet", "FeatureReader"]
