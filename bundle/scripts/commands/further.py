"""The commands that some need: comparing, versions, export, the doors of a hospital, and what goes on inside."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from scripts.commands.everyone import DATA_HELP, Network, Run, Show, Work, command, plain_command
from scripts.commands.keyed import KEYS

FURTHER = "Further"

Submit = Annotated[
    str | None,
    typer.Option("--submit", metavar="NAME", help="jobs of a cluster: slurm, local, or a YAML file (extra [cluster])"),
]

app = typer.Typer()
keyed, plain = command(app, FURTHER), plain_command(app, FURTHER)


@keyed("dynammo export runs/lesions-dynammo-resnet18-s1 --pruning 0.3")
def export(ctx: typer.Context, run: Run, show: Show = False) -> Work:
    """Write a run's model as TorchScript, ONNX and 8-bit ONNX, each checked."""
    from scripts.commands.train import on_a_run

    return lambda: on_a_run(run, ("train", "export"), "model", ctx.meta[KEYS], show)


@keyed(
    "dynammo pretrain /data/slides",
    "dynammo pretrain /data/slides --method moco --backbone resnet50 --batch_size 256 --backbone_epochs 200",
)
def pretrain(
    ctx: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"a folder of pictures; or {DATA_HELP}")],
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="simsiam or moco")] = "simsiam",
    network: Network = None,
    show: Show = False,
) -> Work:
    """Let a backbone learn from images whose labels are not read, and write a file that --weights takes."""
    from scripts.commands.pretrain import pretrain

    return lambda: pretrain(data, ctx.meta[KEYS], method, network, show)


@keyed(
    "dynammo compare generated dynammo acl finetune --seeds 1,2,3",
    "dynammo compare /data/lesions dynammo dynammo+lora+levels+ridge --adapter_epochs 20",
    "dynammo compare /data/lesions all --submit slurm --jobs 50",
)
def compare(
    ctx: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA_HELP}; configs further on after commas")],
    methods: Annotated[list[str], typer.Argument(metavar="METHOD...", help="methods with parts after +, or: all")],
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,N", help="of each method")] = "1,2,3",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="runs at a time")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="of a run; the cores divided by the jobs")
    ] = None,
    submit: Submit = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="runs/comparisons/DATA where none is given")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", metavar="DIR", help="where runs are, or will be; the output if not given")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="print the lines of MONAI, and do nothing")] = False,
) -> Work:
    """Train methods on the same images, several seeds each, and set the results side by side.

    A finished run is not trained again, one that was interrupted goes on, one that fails does not stop the others.
    """
    from scripts.commands.compare import Comparison, compare

    wanted = Comparison(data, tuple(methods), seeds, tuple(ctx.meta[KEYS]), output, runs, jobs, threads, submit)
    return lambda: compare(wanted, show)


@plain(
    "dynammo report runs/lesions-dynammo-resnet18-s1",
    "dynammo report runs/lesions-dynammo-resnet18-s1 --pictures --store /data/versions --output lesions.html",
    "dynammo report runs/comparisons/lesions",
)
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the folder of a run, or of a comparison")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="report.html in the folder where none is given")
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="show some test images, and name their files")] = False,
    scans: Annotated[bool, typer.Option("--scans", help="with --pictures: also of DICOM and NIfTI files")] = False,
    store: Annotated[
        Path | None, typer.Option("--store", metavar="DIR", help="a store of versions, whose audit log is reported")
    ] = None,
    intended_use: Annotated[
        str | None, typer.Option("--intended_use", metavar="TEXT", help="what the model is for, in your words")
    ] = None,
) -> Work:
    """Write one page that holds all of a run or of a comparison: figures, pictures, and a regulator's headings.

    The page needs no network and no other file; the model of each task classifies its test images anew for it.
    """
    from scripts.commands.report import report

    return lambda: report(run, output, pictures, scans, store, intended_use)


@plain(
    "dynammo pictures runs/lesions-dynammo-resnet18-s1",
    "dynammo pictures runs/lesions-dynammo-resnet18-s1 --image /data/lesions/nevus/7.png",
)
def pictures(
    run: Run,
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE", help="whose feature maps are drawn at each level")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="pictures in the run's folder where none is given")
    ] = None,
) -> Work:
    """Draw what a network has learnt: features before and after each merge, CKA a block, confusion, first filters."""
    from scripts.commands.pictures import pictures

    return lambda: pictures(run, image, output)


@keyed(
    "dynammo search generated --trials 20",
    "dynammo search skin8 --dataset_dir /data/isic --method frozen+ridge --space closed_form --seeds 1,2,3 --jobs 4",
)
def search(
    ctx: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)],
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="with parts after +")] = "dynammo",
    space: Annotated[
        str, typer.Option("--space", metavar="NAME", help="a page of configs/search, or a YAML file like them")
    ] = "dynammo",
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="settings that are tried, in place of the page's")
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,N", help="of the runs that are reported")] = "1,2,3",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="processes that search at a time")] = 1,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="of a training; 1 if not given")] = None,
    submit: Submit = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="runs/searches/DATA-METHOD where none is given")
    ] = None,
    show: Show = False,
) -> Work:
    """Tune keys on one order of the classes, by validation images, and report on another beside the published values.

    Trials that fall behind after a task are ended. A search that was stopped goes on; several may share a folder.
    """
    from scripts.commands.compare import seeds_in
    from scripts.commands.search import Search, read_space, search

    folder = (output or Path("runs/searches") / f"{Path(data).stem}-{method}").absolute()
    wanted = Search(
        data, method, read_space(space, trials), tuple(ctx.meta[KEYS]), folder, seeds_in(seeds), jobs, threads, submit
    )
    return lambda: search(wanted, show)


def hand_on(name: str, summary: str) -> None:
    """Add a command of several actions, which reads its words itself.

    Args:
        name: of the command, and of its module.
        summary: a line for the help.
    """

    def run(ctx: typer.Context) -> Work:
        main = importlib.import_module(f"scripts.commands.{name}").main
        return lambda: ("", main(ctx.args))

    app.command(
        name,
        help=summary,
        rich_help_panel=FURTHER,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(run)


hand_on("versions", "Keep versions of a model, and serve the one that the gate let pass: versions STORE add RUN.")


@plain("dynammo backup node /data/versions service /backup/monday", "dynammo backup --keys service /safe/keys")
def backup(
    folders: Annotated[
        list[Path], typer.Argument(metavar="SOURCE... FOLDER", help="folders of the doors, then that of the backup")
    ],
    keys: Annotated[
        bool, typer.Option("--keys", help="copy the secret keys too: who has them can sign, and tell whose an image is")
    ] = False,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="what signs a store's log; STORE.key if not given")
    ] = None,
) -> Work:
    """Copy a node's queue, a store of versions with its log, a labelling service's folder, a run; the doors stay open.

    Each is copied as it is at one moment, and compared with the hashes that it has. A backup that is cut off leaves
    nothing; a whole one has a list of its files with their hashes, backup.json.
    """
    from scripts.commands.backup import backup
    from scripts.utils.errors import UsageError

    def work() -> str:
        if len(folders) < 2:
            raise UsageError("give what is to be copied, and then the folder for the backup")
        return backup(folders[:-1], folders[-1], keys, key)

    return work


@plain("dynammo restore /backup/monday /data/restored")
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="what `backup` has written")],
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="it must not be there, or be empty")],
) -> Work:
    """Put a backup back into an empty place, once every file is compared with its hash, and the log verified.

    Point the doors at what is there then: --queue_dir, --service_dir, the store.
    """
    from scripts.commands.backup import restore

    return lambda: restore(source, target)


hand_on("users", "Say who may use the labelling service: users FILE add NAME --role labeller.")


@plain(
    "dynammo forget runs/lesions-dynammo-resnet18-s1 /data/lesions/a/patient.png",
    "dynammo forget runs/lesions-dynammo-resnet18-s1 patient.png --class nevus",
)
def forget(
    run: Run,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="files whose content is to be forgotten")],
    label: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="NAME", help="as which they were learnt: out of the sums of a head in closed form too"
        ),
    ] = None,
) -> Work:
    """Remove images from what a run keeps; what its weights have learnt from them stays.

    Each is compared by content, so a renamed file is found; one that was saved anew is not. An image of an npz file is
    FILE.npz#train/INDEX. Not while the run is training. Runs that learnt from this one (learn), or were moved aside
    (--restart), keep images of their own: use this on each of them.
    """
    from scripts.commands.forget import forget

    return lambda: forget(Path(run).resolve(), images, label)


@plain(
    "dynammo suspects runs/lesions-dynammo-resnet18-s1",
    "dynammo suspects runs/lesions-dynammo-resnet18-s1 --images 128 --output /data/to_check",
)
def suspects(
    run: Run,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="suspects in the run's folder where none is given")
    ] = None,
    images: Annotated[int, typer.Option("--images", min=0, help="on the contact sheet; 0: none")] = 64,
) -> Work:
    """List training images that look mislabelled, and draw the surest: a table and a contact sheet.

    Each is judged by ridge regression on all the others, on the features of the finished run: it is a suspect where
    another class than its own scores highest. The images must be where they were; a person decides what is wrong.
    """
    from scripts.commands.suspects import suspects

    return lambda: suspects(Path(run).resolve(), output, images)


@plain(
    "dynammo deidentify runs/lesions-dynammo-resnet18-s1 lesions-to-share --store /data/versions",
    "dynammo deidentify service/RUN/run lesions-to-share --store /data/versions --burned_in",
)
def deidentify(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="for the copies; it must not be there, or be empty")],
    store: Annotated[
        Path, typer.Option("--store", metavar="DIR", help="of versions, whose audit log has each copy by hash")
    ],
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="what signs the log; STORE.key where none is given")
    ] = None,
    burned_in: Annotated[
        bool, typer.Option("--burned_in", help="copy also what does not say that no text is burned into its pixels")
    ] = False,
) -> Work:
    """Copy the images that a run learnt from, without names, and a labels.csv of them.

    DICOM files stay DICOM, with new identifiers and dates and no free text (extra [deidentify]); of other images the
    pixels are copied as they were learnt. Pixels are not changed: look at them, a face or a name may be in there. A run
    that went on from another one has the images of its own tasks.
    """
    from scripts.commands.deidentify import deidentify
    from scripts.deploy.versions import VersionStore

    return lambda: deidentify(Path(run).resolve(), folder, VersionStore(store, key), burned_in)


@plain("dynammo join hospital_a", "dynammo join hospital_a --folder /secure/keys")
def join(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the site; letters, digits, _ and -")],
    folder: Annotated[Path, typer.Option("--folder", metavar="DIR", help="for the keys and the card")] = Path(),
) -> Work:
    """Make the keys of a site that takes part in a federation, and the card that the others know it by."""
    from scripts.commands.join import join

    return lambda: join(name, folder)


@plain(
    "dynammo contribute runs/lesions-frozen+levels+ridge+federated-mobilenet_v2-s1 a.safetensors --site a.site.json",
    "dynammo contribute RUN a.safetensors --site a.site.json --round round.yaml",
    "dynammo contribute RUN a.safetensors --site a.site.json --epsilon 3 --delta 1e-5 --clip 20",
)
def contribute(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="is written; no image is in it")],
    site: Annotated[Path, typer.Option("--site", metavar="CARD", help="NAME.site.json; its keys lie beside it")],
    round_file: Annotated[
        Path | None, typer.Option("--round", metavar="FILE", help="mask the sums with the sites of this round (YAML)")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="add noise for this much privacy loss; extra [privacy]")
    ] = None,
    delta: Annotated[float, typer.Option("--delta", help="of the noise; below 1 over the number of images")] = 1e-5,
    clip: Annotated[
        float | None, typer.Option("--clip", help="of the noise: the longest feature vector; known without the images")
    ] = None,
    adapters: Annotated[
        Path | None, typer.Option("--adapters", metavar="FILE", help="carry the sums through adapters that were merged")
    ] = None,
    codes: Annotated[
        Path | None, typer.Option("--codes", metavar="FILE", help="YAML, class: [scheme, code, meaning]")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave_out", metavar="CLASS", help="a class that stays here; may be repeated")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, help="keep float32 where it changes the head by less than this share; 0: never"
        ),
    ] = 1e-6,
) -> Work:
    """Write what a run has learnt as one signed file that adds to those of other sites: sums and counts, no image.

    Sums leave as they are only with as many images of each class as features; else masked, or with noise.
    """
    from scripts.commands.contribute import Wanted, contribute
    from scripts.federation.noise import asked_noise

    def work() -> str:
        noise = asked_noise(epsilon, delta, clip)
        wanted = Wanted(site, round_file, noise, adapters, codes, tuple(leave_out or ()), tolerance)
        return contribute(Path(run).resolve(), file, wanted)

    return work


Weights = Annotated[
    str | None, typer.Option("--weights", metavar="FILE", help="what all sites started from: a file or a name")
]
Shrinkage = Annotated[
    float | None, typer.Option("--shrinkage", help="of the head; what has erred least at the sites where none is given")
]


@plain("dynammo federate a.safetensors b.safetensors c.safetensors federation --weights mobilenet_v2.pth")
def federate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE... OUT", help="contributions, then the federation's folder")
    ],
    weights: Weights = None,
    row: Annotated[str, typer.Option("--row", metavar="NAME", help="the way adapters are merged")] = "average",
    shrinkage: Shrinkage = None,
) -> Work:
    """Add what sites contribute to what a federation has, and keep the model as a version of it.

    It is that of one hospital with all images, exactly where the backbone is frozen. A site counts once: its newer file
    replaces its older one. The cards of the sites lie in OUT/sites.
    """
    from scripts.commands.federate import Rules, federate

    return lambda: federate(files, Rules(weights, row, shrinkage))


@plain("dynammo withdraw hospital_a federation")
def withdraw(
    site: Annotated[str, typer.Argument(metavar="SITE", help="its name")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the federation's folder")],
    weights: Weights = None,
    shrinkage: Shrinkage = None,
) -> Work:
    """Take a site out of a federation: a version that equals, to the bit, that of the other sites alone."""
    from scripts.commands.federate import Federation

    return lambda: Federation(out).withdraw(site, weights, shrinkage)


@keyed("dynammo serve runs/lesions-dynammo-resnet18-s1 --port 8080")
def serve(ctx: typer.Context, run: Run, show: Show = False) -> Work:
    """Serve a model over HTTP: a page to classify and label images, and to learn from the labels."""
    from scripts.commands.train import on_a_run

    return lambda: on_a_run(run, ("service",), "run_dir", ctx.meta[KEYS], show)


@keyed("dynammo node runs/lesions-dynammo-resnet18-s1 --port 11112 --callers CT1,CT2 --host 0.0.0.0")
def node(ctx: typer.Context, run: Run, show: Show = False) -> Work:
    """Classify what a DICOM archive sends, and answer with reports."""
    from scripts.commands.train import on_a_run

    return lambda: on_a_run(run, ("node",), "model", ctx.meta[KEYS], show)


hand_on("queue", "Say what a DICOM node has done, and let it try again: queue list node, queue retry node.")


@plain("dynammo package runs/lesions-dynammo-resnet18-s1 dist/lesions.zip")
def package(
    run: Run,
    target: Annotated[Path, typer.Argument(metavar="ZIP", help="the file to write; one that is there is replaced")],
    deploy: Annotated[bool, typer.Option("--deploy", help="leave out what only learning needs")] = False,
) -> Work:
    """Write a finished run as a MONAI bundle in a zip file."""
    from scripts import bundle_root
    from scripts.commands.package import package

    return lambda: package(Path(run), target, Path(bundle_root()), deploy)


@plain("dynammo keys image_size", "dynammo keys memory")
def keys(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORD...", help="of a key or of what it does")] = None,
) -> Work:
    """Print what each key takes and does; those that are called like a word, or have it in their description."""
    from scripts.commands.key_table import reference
    from scripts.commands.keys import named

    return lambda: reference(named(words or []))


@plain("dynammo conformance > CONFORMANCE.md")
def conformance() -> Work:
    """Print the DICOM conformance statement, and what FHIR, HL7 v2 and IHE AIR are told of a result."""
    from scripts.commands.conformance import conformance_statement

    return conformance_statement


@plain("dynammo doctor")
def doctor() -> Work:
    """Say what works on this machine, and what to do about the rest."""
    from scripts.commands.doctor import examine

    return examine
