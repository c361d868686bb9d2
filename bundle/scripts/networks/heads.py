"""Heads: from the features of one or more branches to a score for every class seen so far."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from scripts.errors import UserError
from scripts.networks.closed_form import ridge, whitening

MARGIN = 1e-4  # how far classes of other tasks stay behind the predicted one, in log-probability
SCALE = (
    10.0  # of squared distances (0..4) as logits: an image 0.2 nearer to one mean than to another is 7 times as likely
)

PROJECTIONS = 2000  # random features; RanPAC has 10,000, whose sums take 0.8 GB

# what a head reads of the backbone: the mean of the last map, the same without the last activation, or maps before it
RECTIFIED, SIGNED, LEVELS = "rectified", "signed", "levels"


class UnifiedHead(nn.Module):
    """One linear layer over all classes seen so far (DynaMMo, balanced fine-tuning), trained or solved.

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    reads: ClassVar[str] = RECTIFIED

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")  # before the first task
            self.linear = nn.Linear(width, sum(classes))

    def grow(self, num_classes: int) -> None:
        """Add freshly started rows for ``num_classes`` new classes; the old rows stay as they are."""
        self.linear = grown(self.linear, self.linear.in_features, self.linear.out_features + num_classes)

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take the newest ``num_classes`` rows from an auxiliary head, whose last output is ``others``."""
        with torch.no_grad():
            self.linear.weight[-num_classes:] = auxiliary.weight[:num_classes]
            self.linear.bias[-num_classes:] = auxiliary.bias[:num_classes]

    def embed(self, features: Tensor) -> Tensor:
        """Map features [N, d] to what the linear layer reads, [N, D]."""
        return features

    @torch.no_grad()
    def solve(self, second: Tensor, first: Tensor, shrinkage: float) -> None:
        """Take the weights of ridge regression; see :func:`scripts.networks.closed_form.ridge`.

        Args:
            second: sum of x'x, x an embedded image and a 1, [1, D + 1, D + 1].
            first: sum of x of each class, [C, D + 1].
            shrinkage: of the ridge.
        """
        weights = ridge(second[0], first, shrinkage)
        self.linear.weight.copy_(weights[:, :-1])
        self.linear.bias.copy_(weights[:, -1])

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to logits [B, C]."""
        return self.linear(self.embed(features.flatten(1)))


class RandomProjectionHead(UnifiedHead):
    """A linear layer, always solved, on random features relu(f P), whose P is drawn once.

    Source: McDonnell et al., RanPAC (NeurIPS 2023).

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(PROJECTIONS, classes)
        self.projection: Tensor
        self.register_buffer("projection", torch.randn(width, PROJECTIONS))

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take nothing: the auxiliary head reads other features."""

    def embed(self, features: Tensor) -> Tensor:
        """Map features [N, d] to random ones, [N, D]."""
        return (features @ self.projection).relu()


class LevelsHead(UnifiedHead):
    """One linear layer that reads the levels before the last: textures and colours stand in early maps.

    Of the map before each adapter but the first it reads the mean and the standard deviation over the image. The
    adapters are tuned on the last map, as without it. That map is left out: what tuning has fitted to the training
    images says more of these than of others, and a head solved on the same images would rely on it.

    Args:
        width: means and standard deviations that it reads, the last ones of the features.
        classes: number of classes of each task learnt so far.
    """

    reads: ClassVar[str] = LEVELS

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take nothing: the auxiliary head reads the last map."""

    def embed(self, features: Tensor) -> Tensor:
        """Map features [N, d] to the levels before the last map, [N, D]."""
        return features[:, -self.linear.in_features :]


def grown(linear: nn.Linear, inputs: int, outputs: int) -> nn.Linear:
    """Return a larger layer that begins with the weights of ``linear``; what is added is freshly started."""
    larger = nn.Linear(inputs, outputs).to(linear.weight)
    with torch.no_grad():
        larger.weight[: linear.out_features, : linear.in_features] = linear.weight
        larger.bias[: linear.out_features] = linear.bias
    return larger


class ConcatenatedHead(UnifiedHead):
    """One linear layer over all classes seen so far that reads a branch a task, [B, T, d].

    Source: Yan et al., DER (CVPR 2021), section 3.2, classifier.

    Args:
        width: features of one branch.
        classes: number of classes of each task learnt so far.
    """

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width * max(1, len(classes)), classes)
        self.width = width

    def grow(self, num_classes: int) -> None:
        """Add rows for ``num_classes`` new classes and, from the second task on, columns for a new branch."""
        seen = self.linear.out_features
        columns = self.linear.in_features + self.width if seen else self.width
        self.linear = grown(self.linear, columns, seen + num_classes)


class NearestMeanHead(UnifiedHead):
    """A linear layer learns; in evaluation the nearest class mean decides, on L2-normalised features.

    Source: Rebuffi et al., iCaRL (CVPR 2017), algorithm 1; the means are normalised too, as the paper has it.

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width, classes)
        self.scale = SCALE
        self.means: Tensor
        self.register_buffer("means", torch.zeros(sum(classes), width))

    def grow(self, num_classes: int) -> None:
        """Add rows and, still zero, means for ``num_classes`` new classes."""
        super().grow(num_classes)
        self.means = torch.cat([self.means, self.means.new_zeros(num_classes, self.means.shape[1])])

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to logits [B, C]; in evaluation to minus the scaled squared distances."""
        if self.training:
            return self.linear(features.flatten(1))
        # not as 2 - 2 ab, which is nothing but rounding errors where all features are alike
        differences = normalize(features.flatten(1), dim=1).unsqueeze(1) - self.means
        return -self.scale * differences.square().sum(2)


class ClassMeansHead(nn.Module):
    """The nearest class mean decides, on L2-normalised features; the means come from sums over all images.

    With covariances the distance is Mahalanobis's, on square roots of the features (FeCAM), else Euclid's (NCM).
    Source: Goswami et al., FeCAM (NeurIPS 2023).

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    reads: ClassVar[str] = RECTIFIED
    has_covariances: ClassVar[bool] = False

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__()
        self.covariances = self.has_covariances
        count = sum(classes)
        self.means: Tensor
        self.whitening: Tensor
        self.register_buffer("means", torch.zeros(count, width))
        self.register_buffer("whitening", torch.zeros(count, width, width) if self.covariances else torch.zeros(0))

    def grow(self, num_classes: int) -> None:
        """Make room for ``num_classes`` new classes."""
        grown = type(self)(self.means.shape[1], [len(self.means) + num_classes])
        self.means, self.whitening = grown.means, grown.whitening

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take nothing: there is no linear layer."""

    def embed(self, features: Tensor) -> Tensor:
        """Map features [N, d] to what is summed and compared, [N, d]."""
        return features.clamp(min=0).sqrt() if self.covariances else features

    def solve(self, second: Tensor, first: Tensor, shrinkage: float) -> None:
        """Take means and covariances from sums; see :func:`scripts.networks.closed_form.whitening`.

        Args:
            second: sum of x'x of each class, x an embedded image and a 1, [C, d + 1, d + 1]; read for covariances.
            first: sum of x of each class, [C, d + 1].
            shrinkage: of the covariances.
        """
        means = first[:, :-1] / first[:, -1:]  # the sum of the ones is the weight of what is left of the class
        self.means = means.to(self.means)
        if self.covariances:
            seconds = second[:, :-1, :-1] / first[:, -1:, None]
            self.whitening = whitening(seconds, means, shrinkage).to(self.whitening)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to minus the squared distances [B, C]."""
        embedded = normalize(self.embed(features.flatten(1)), dim=1).unsqueeze(1)
        differences = embedded - normalize(self.means, dim=1)
        if self.covariances:
            differences = torch.einsum("cij,bcj->bci", self.whitening, differences)
        return -differences.square().sum(2)


class CovariancesHead(ClassMeansHead):
    """FeCAM: class means with a covariance each."""

    has_covariances: ClassVar[bool] = True


class OthersHead(nn.Module):
    """A linear head a task with one extra output, ``others``, for the classes of all other tasks.

    Where there is a branch a task (ACL), head i reads branch i; where there is one (DynaMMo), every head reads it.
    Source: Zhang et al., ACL (MICCAI 2023); Qazi et al., DynaMMo (MIUA 2024).

    Args:
        width: features of one branch.
        classes: number of classes of each task learnt so far.
    """

    reads: ClassVar[str] = RECTIFIED

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__()
        self.width = width
        self.margin = MARGIN
        self.heads = nn.ModuleList(nn.Linear(width, count + 1) for count in classes)

    def grow(self, num_classes: int) -> None:
        """Add the head of a new task."""
        self.heads.append(nn.Linear(self.width, num_classes + 1))

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take the newest head from an auxiliary head of ``num_classes + 1`` outputs."""
        self.heads[-1].load_state_dict(auxiliary.state_dict())

    def task_logits(self, features: Tensor) -> list[Tensor]:
        """Map features [B, R, d] to a list of logits [B, n_t + 1], one a task."""
        branches = features.shape[1]
        return [head(features[:, index if branches > 1 else 0]) for index, head in enumerate(self.heads)]

    def others_probability(self, features: Tensor) -> Tensor:
        """Return P(others) of every head, [B, T]: the predicted task is the smallest; open-set score 1 - minimum."""
        return torch.stack([logits.softmax(1)[:, -1] for logits in self.task_logits(features)], 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, R, d] to log-scores [B, C] whose largest is the published decision.

        The decision takes the task with the smallest P(others) and there the best known class; classes of other tasks
        keep their own log-probability where it does not contradict the decision.
        """
        branches = features.shape[1]
        scores: list[Tensor] = []
        others: list[Tensor] = []
        tasks: list[Tensor] = []
        for index, head in enumerate(self.heads):
            logarithms = head(features[:, index if branches > 1 else 0]).log_softmax(1)
            scores.append(logarithms[:, :-1])
            others.append(logarithms[:, -1])
            tasks.append(torch.full([logarithms.shape[1] - 1], index, device=features.device))
        score = torch.cat(scores, 1)
        chosen = torch.stack(others, 1).argmin(1, keepdim=True)
        inside = torch.cat(tasks).unsqueeze(0) == chosen
        best = score.masked_fill(~inside, -float("inf")).amax(1, keepdim=True)
        return torch.where(inside, score, torch.minimum(score, best - self.margin))


class Scale(nn.Module):
    """A learnable factor, 1 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply a tensor of any shape."""
        return self.factor * x


class CosineHead(nn.Module):
    """The scaled cosine between an image's features and each class's row; of several rows a class, near ones count.

    The similarity to a class with several rows (*proxies*) is the mean of their cosines, weighted by the cosines'
    softmax. The rows of each task are a layer of their own, so that the old ones can be left as they are.
    Source: Hou et al., UCIR (CVPR 2019), cosine normalisation; Douillard et al., PODNet (ECCV 2020), section 3.2.

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    reads: ClassVar[str] = SIGNED
    proxies: ClassVar[int] = 1

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__()
        self.width = width
        self.per_class = self.proxies
        self.scale = Scale()
        self.rows = nn.ModuleList()
        for count in classes:
            self.grow(count)

    def grow(self, num_classes: int) -> None:
        """Add freshly started rows for ``num_classes`` new classes."""
        self.rows.append(nn.Linear(self.width, num_classes * self.per_class, bias=False))

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take the newest rows from an auxiliary head, whose last output is ``others``."""
        with torch.no_grad():
            self.rows[-1].get_parameter("weight").copy_(
                auxiliary.weight[:num_classes].repeat_interleave(self.per_class, 0)
            )

    def newest(self) -> list[nn.Module]:
        """Return what learns while the old rows stay as they are: the scale and the newest task's rows."""
        return [self.scale, *self.rows[-1:]]

    def cosines(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to the similarity to each class, [B, C], in -1..1."""
        directions = normalize(features.flatten(1), dim=1)
        cosines = [directions[:, :0]]  # before the first task there are no rows
        for layer in self.rows:
            cosines.append(linear(directions, normalize(layer.weight, dim=1)))  # type: ignore[arg-type]
        of_proxies = torch.cat(cosines, 1).unflatten(1, [-1, self.per_class])
        return (of_proxies.softmax(2) * of_proxies).sum(2)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to logits [B, C]."""
        return self.scale(self.cosines(features))


class ProxyHead(CosineHead):
    """PODNet's local similarity classifier: ten rows a class."""

    proxies: ClassVar[int] = 10


Head = UnifiedHead | ClassMeansHead | OthersHead | CosineHead

HEADS: dict[str, type[Head]] = {
    "unified": UnifiedHead,
    "levels": LevelsHead,
    "others": OthersHead,
    "nearest_mean": NearestMeanHead,
    "concatenated": ConcatenatedHead,
    "cosine": CosineHead,
    "proxies": ProxyHead,
    "random_projection": RandomProjectionHead,
    "ncm": ClassMeansHead,
    "fecam": CovariancesHead,
}


def find_head(name: str) -> type[Head]:
    """Return the kind of head called ``name``.

    Raises:
        UserError: when ``name`` is not in :data:`HEADS`.
    """
    if name not in HEADS:
        raise UserError(f"unknown head '{name}': choose one of {', '.join(HEADS)} (key 'network_def#head')")
    return HEADS[name]
