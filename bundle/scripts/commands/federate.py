"""Add what sites contribute, and keep the result as a version; take a site out again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, save

from scripts.deploy.versions.gate import ANSWERS
from scripts.deploy.versions.store import Version, VersionStore
from scripts.federation.contribution import MASKED, Contribution, read_contribution
from scripts.federation.masks import check_complete
from scripts.federation.matching import TABLE, codes_of, match_classes
from scripts.federation.network import below_head, features_digest, first_network
from scripts.federation.pool import Pool, averaged_adapters
from scripts.federation.site import CARD, cards_in
from scripts.model.folder import TrainedModel
from scripts.model.networks import ROWS, Merging, classifier_from, weights_licence
from scripts.utils.errors import UserError
from scripts.utils.files import DESCRIPTION, WEIGHTS, hold, write_atomically
from scripts.utils.words import counted

SITES, CONTRIBUTIONS, ADAPTERS = "sites", "contributions", "adapters.safetensors"
KEPT = "contributions"
"""What the record of a version calls the contributions that are in it."""
WITHDRAWN, CONTRIBUTED = "withdrawn", "contributed"
DATA = "federation"
UNTESTED = {"mean_class_recall": None, "calibration_error": None, "refused": 0}


@dataclass(frozen=True)
class Rules:
    """How contributions become a model.

    Attributes:
        weights: the pretrained weights that all sites started from; ``None``: none.
        row: name of the way in which adapters are merged.
        shrinkage: of the head; ``None``: what has erred least at the sites.
    """

    weights: str | None = None
    row: str = "average"
    shrinkage: float | None = None


class Federation:
    """A store of versions, with what sites have contributed to them.

    Args:
        folder: holds the versions and their log, ``sites`` (cards that somebody has compared), ``contributions`` and
            ``classes.csv``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.store = VersionStore(self.folder)

    def federate(self, files: Sequence[Path], rules: Rules) -> str:
        """Add contributions to those there are, and write a version.

        Returns:
            What was done.

        Raises:
            UserError: says which file, or site, does not go with the others; then nothing is changed.
        """
        with self._held():
            latest = self.latest()
            before = self.contributions(latest)
            new = [self._accepted(path, before) for path in files]
            _refuse_twice(new)
            kept = _kept(before, new)
            _refuse_torn_rounds(kept, new)
            contributions = sorted([*kept, *new], key=lambda one: (one.header["made"], one.site))
            if len({one.identity.features for one in contributions}) > 1:
                return self._average(contributions, rules)
            known = {} if latest is None else latest.record["codes"]
            names = match_classes(contributions, known, self.folder / TABLE)
            gone = {one.site: one for one in before if one.site not in {other.site for other in contributions}}
            version = self._write(Pool(contributions, names), rules, latest, new, list(gone.values()))
            return self._said(version)

    def withdraw(self, site: str, weights: str | None = None, shrinkage: float | None = None) -> str:
        """Take out what a site has contributed, and write a version without it: that of the other sites alone.

        Args:
            site: its name.
            weights: as in :class:`Rules`; ``None``: those of the newest version.
            shrinkage: in the same way.

        Raises:
            UserError: when it is not in, or cannot be told from others.
        """
        with self._held():
            latest = self.latest()
            before = self.contributions(latest)
            gone = [one for one in before if one.site == site]
            if latest is None or not gone:
                present = ", ".join(sorted(one.site for one in before)) or "none"
                raise UserError(f"site {site} is not in the newest version of {self.folder}: there are {present}")
            if gone[0].kind == MASKED:
                name = gone[0].header["round"]["name"]
                raise UserError(
                    f"the sums of site {site} are masked in round {name}, nobody can tell them from the others': let "
                    "the other sites contribute in a new round without it"
                )
            kept = [one for one in before if one.site != site]
            if not kept:
                raise UserError(f"site {site} is the only one: delete {self.folder}")
            names = match_classes(kept, latest.record["codes"], self.folder / TABLE)
            config = latest.record["config"]
            rules = Rules(weights, config["row"], config["given_shrinkage"] if shrinkage is None else shrinkage)
            version = self._write(Pool(kept, names), rules, latest, [], gone)
            return (
                f"{self._said(version)} Site {site} is taken out, and its file deleted. The versions before it were "
                "learnt with it: promote this one, and delete them where the site asks for it."
            )

    # -- what there is ------------------------------------------------------------------------------------------

    def latest(self) -> Version | None:
        """Return the newest version."""
        return next(reversed(self.store.versions()), None)

    def contributions(self, version: Version | None) -> list[Contribution]:
        """Return what is in a version.

        Raises:
            UserError: when a file is gone, or was changed.
        """
        cards = cards_in(self.folder / SITES)
        found = []
        for record in () if version is None else version.record.get(KEPT, ()):
            path = self._place(record["sha256"])
            if record["site"] not in cards:
                raise UserError(f"the card of site {record['site']} is not in {self.folder / SITES}: put it back")
            found.append(read_contribution(path, cards[record["site"]]))
            if found[-1].sha256 != record["sha256"]:
                raise UserError(f"{path} is not the file that was added: restore it from a copy")
        return found

    def _place(self, sha256: str) -> Path:
        return self.folder / CONTRIBUTIONS / f"{sha256[:32]}.safetensors"

    def _accepted(self, path: Path, before: Sequence[Contribution]) -> Contribution:
        """Read a new contribution, and refuse one that is not new, or of a site that nobody knows."""
        cards = cards_in(self.folder / SITES)
        site = read_contribution(path).site
        if site not in cards:
            raise UserError(
                f"{path} says that it is of site {site}, which is not known here: put its card ({site}{CARD}) into "
                f"{self.folder / SITES} once you have compared its fingerprint with the site by another way"
            )
        new = read_contribution(path, cards[site])
        earlier = [(one.header["made"], one.sha256) for one in before if one.site == site]
        events = self.store.audit.events() if self.store.audit.exists else []
        earlier += [(event["made"], event["sha256"]) for event in events if event.get("site") == site]
        for made, sha256 in earlier:
            if new.sha256 == sha256:
                raise UserError(f"{path} was added before: a site's file counts once, leave it out")
            if new.header["made"] <= made:
                raise UserError(
                    f"{path} was made on {new.header['made'][:19]}, before what site {site} has given or withdrawn: "
                    "let it contribute anew"
                )
        return new

    # -- what is made -------------------------------------------------------------------------------------------

    def _average(self, contributions: Sequence[Contribution], rules: Rules) -> str:
        """Write the average of the sites' adapters, to which each site carries its sums."""
        target = self.folder / ADAPTERS
        if target.is_file() and not all(one.adapters() for one in contributions):
            own = ", ".join(one.site for one in contributions if one.adapters())
            raise UserError(
                f"the sums of site {own} are of adapters of its own: let it contribute with --adapters {target.name}, "
                "which this federation has averaged"
            )
        adapters = averaged_adapters(contributions, Merging(ROWS.find(rules.row)()))
        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {"row": rules.row, "sites": json.dumps([one.site for one in contributions])}
        save_file({name: tensor.contiguous() for name, tensor in adapters.items()}, target, metadata)
        return (
            f"The sites have tuned adapters, so that their sums are of different features. {target} holds the adapters "
            f"merged by '{rules.row}': send it to all sites. Each contributes again with --adapters FILE, which "
            "carries its sums there; then federate these files."
        )

    def _write(
        self,
        pool: Pool,
        rules: Rules,
        parent: Version | None,
        new: Sequence[Contribution],
        gone: Sequence[Contribution],
    ) -> Version:
        pool.check()
        tasks = _tasks(pool.classes(), parent)
        ordered = [name for task in tasks for name in task["classes"]]
        first = pool.contributions[0]
        described, state = self._below_head(first, rules, parent)
        described |= {"tasks": tasks, "image": dict(first.identity.image)}
        network = classifier_from(described)
        network.load_state_dict({**network.state_dict(), **state})
        shrinkage = pool.shrinkage() if rules.shrinkage is None else rules.shrinkage
        images = pool.solve(network.head, shrinkage, ordered)
        method = first.header["method"]
        details = {
            "name": f"{self.folder.name}-{method}-{described['backbone']}",
            "tasks": tasks,
            "tested": {"images": dict.fromkeys(ordered, 0), "recalls": dict.fromkeys(ordered), **UNTESTED},
            "accuracy_matrix": [],
            "config": {"row": rules.row, "shrinkage": shrinkage, "given_shrinkage": rules.shrinkage},
            "licence": weights_licence(first.identity.network["backbone"], rules.weights),
            KEPT: [one.record() for one in pool.contributions],
            "images": images,
            "codes": {name: code for name, code in codes_of(pool.contributions, pool.names).items() if name in ordered},
        }
        buffer = io.BytesIO()
        save(network.state_dict(), buffer)
        description = {**described, "method": method, "data": self.folder.name}
        files = {
            WEIGHTS: buffer.getvalue(),
            DESCRIPTION: f"{json.dumps(description, indent=4)}\n".encode(),
            ANSWERS: b"{}\n",
        }
        self.store.begin()
        for one in new:
            write_atomically(self._place(one.sha256), one.path.read_bytes())
        version = self.store.add(files, details, None if parent is None else parent.number)
        for one in new:
            self.store.audit.add(CONTRIBUTED, {"version": version.number, **one.record()}, self.store.by)
        for one in gone:
            self.store.audit.add(WITHDRAWN, {"version": version.number, **one.record()}, self.store.by)
        kept = {self._place(one["sha256"]) for one in version.record[KEPT]}
        for path in {*(self.folder / CONTRIBUTIONS).iterdir()} - kept:
            path.unlink()
        return version

    def _below_head(
        self, first: Contribution, rules: Rules, parent: Version | None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what makes the features: of the version before, or built anew, and described.

        Raises:
            UserError: when it is not what made those of the sites.
        """
        before = None if parent is None or rules.weights is not None else TrainedModel.open(parent.folder)
        if before is not None and features_digest(before.network.state_dict()) == first.identity.features:
            return dict(before.description), below_head(before.network.state_dict())
        averaged = self.folder / ADAPTERS
        adapters = first.adapters() or (load_file(averaged) if averaged.is_file() else None)
        record = first.identity.network
        found = first_network(record, rules.weights, None if record["adapter"] is None else adapters)
        if features_digest(found[1]) != first.identity.features:
            raise UserError(
                "the features of the sites' sums are not those of this backbone with these weights: give the weights "
                "that the sites learnt with (--weights)"
            )
        return found

    def _said(self, version: Version) -> str:
        record = version.record
        sites = [one["site"] for one in record[KEPT]]
        return (
            f"{version.folder} is version {version.number}, of {counted(len(sites), 'site')} ({', '.join(sites)}) and "
            f"{counted(len(version.classes), 'class', 'classes')}. It is not tested: classify with it, then promote it "
            f"(dynammo versions {self.folder} promote {version.number} --reason ...)."
        )

    @contextmanager
    def _held(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with hold(self.folder / ".federation.lock", DATA, "OUT"):
            yield


def _tasks(names: Sequence[str], parent: Version | None) -> list[dict[str, Any]]:
    """Return the classes as tasks: those of the version before in its order, then what is new as one more."""
    tasks = [] if parent is None else [dict(task) for task in parent.record["tasks"]]
    known = {name for task in tasks for name in task["classes"]}
    kept = [{**task, "classes": [name for name in task["classes"] if name in names]} for task in tasks]
    new = [name for name in names if name not in known]
    number = 1 if parent is None else parent.number + 1
    return [task for task in [*kept, {"name": f"{DATA}_{number}", "classes": new}] if task["classes"]]


def _refuse_twice(new: Sequence[Contribution]) -> None:
    sites = [one.site for one in new]
    if twice := sorted({site for site in sites if sites.count(site) > 1}):
        raise UserError(
            f"there are two files of site {', '.join(twice)}: give the newer one, which holds all it learnt"
        )


def _kept(before: Sequence[Contribution], new: Sequence[Contribution]) -> list[Contribution]:
    """Return what stays beside new contributions: not a site's older one, nor a round that was masked anew."""
    sites = {one.site for one in new}
    masked = {one.site for one in new if one.kind == MASKED}
    anew = {one.header["round"]["digest"] for one in before if one.kind == MASKED and one.site in masked}
    stays = [one for one in before if one.site not in sites]
    return [one for one in stays if one.kind != MASKED or one.header["round"]["digest"] not in anew]


def _refuse_torn_rounds(kept: Sequence[Contribution], new: Sequence[Contribution]) -> None:
    """Refuse to replace one of the files of a round that others of it are still in."""
    for one in kept:
        if one.kind == MASKED:
            check_complete(one.header["round"], [other.site for other in kept if other.kind == MASKED])
    for one in new:
        if one.kind == MASKED:
            check_complete(one.header["round"], [other.site for other in new if other.kind == MASKED])


def federate(words: Sequence[Path], rules: Rules) -> str:
    """Add ``FILE... OUT``; see :meth:`Federation.federate`.

    Raises:
        UserError: when one of both is missing, or as that does.
    """
    *files, folder = words
    if not files or folder.is_file():
        raise UserError("give the contributions, and behind them the federation's folder: dynammo federate FILE... OUT")
    if missing := [str(file) for file in files if not file.is_file()]:
        raise UserError(f"{missing[0]} is missing: give the files that the sites have sent")
    return Federation(folder).federate(files, rules)
