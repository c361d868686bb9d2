"""The commands that everyone needs, from a first look at images to their classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from scripts.commands.keyed import KEYS, KeyedCommand

INPUTS, OUTPUTS = ["HOLOSCAN_INPUT_PATH", "MERCURE_IN_DIR"], ["HOLOSCAN_OUTPUT_PATH", "MERCURE_OUT_DIR"]
"""Where MONAI Deploy and mercure name the folders of `classify`."""
DATA_HELP = (
    "a folder with a folder a class, a CSV table, an npz file, a MONAI datalist, a folder of DICOM or NIfTI files, or "
    "a data set by its name"
)
ANY_KEY = "Any key of the configs may follow, as --image_size 128: dynammo keys [WORD] lists them."

Work = Callable[[], str | tuple[str, int]]
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
Run = Annotated[str, typer.Argument(metavar="RUN", help="the folder of a run, or of a model")]
Show = Annotated[bool, typer.Option("--show", help="print the equal line of MONAI, and do nothing")]
Method = Annotated[
    str | None, typer.Option("--method", help="a method and parts, such as dynammo+levels+ridge", metavar="NAME")
]
Network = Annotated[str | None, typer.Option("--network", help="a page of configs/networks", metavar="NAME")]

app = typer.Typer(
    no_args_is_help=True,
    help="A medical image classifier that learns new diseases without forgetting the old ones.",
    epilog="First steps: dynammo doctor, dynammo plan DATA, dynammo train DATA, dynammo classify RUN IMAGES.",
)


Adding = Callable[..., Callable[[Callable[..., Work]], Callable[..., Work]]]


def command(app: typer.Typer, panel: str) -> Adding:
    """Return what makes a function a command that takes any key, with examples below its help."""
    return lambda *examples: app.command(
        cls=KeyedCommand, rich_help_panel=panel, epilog="\n\n".join(["Examples:", *examples, ANY_KEY])
    )


def plain_command(app: typer.Typer, panel: str) -> Adding:
    """Return what makes a function a command that takes no key, with examples below its help."""
    return lambda *examples: app.command(rich_help_panel=panel, epilog="\n\n".join(["Examples:", *examples]))


keyed = command(app, "For everyone")


@keyed("dynammo plan /data/lesions", "dynammo plan skin8 --dataset_dir /data/isic")
def plan(ctx: typer.Context, data: Data, method: Method = None, network: Network = None, show: Show = False) -> Work:
    """Say what would be trained, and train nothing."""
    from scripts.commands.plan import plan

    return lambda: plan(data, ctx.meta[KEYS], method, network, show)


@keyed(
    "dynammo train",
    "dynammo train /data/lesions --split 2 --adapter_epochs 20",
    "dynammo train skin8 --dataset_dir /data/isic --method dynammo+lora+levels+ridge",
)
def train(
    ctx: typer.Context, data: Data = "generated", method: Method = None, network: Network = None, show: Show = False
) -> Work:
    """Learn the classes of images; without DATA the images that the bundle draws itself."""
    from scripts.commands.train import train

    return lambda: train(data, ctx.meta[KEYS], method, network, show)


@keyed("dynammo learn runs/lesions-dynammo-resnet18-s1 /data/new_lesions")
def learn(ctx: typer.Context, run: Run, data: Data, show: Show = False) -> Work:
    """Learn one more task after those of a run, whose images may be gone."""
    from scripts.commands.train import learn_more

    return lambda: learn_more(run, data, ctx.meta[KEYS], show)


@keyed(
    "dynammo classify runs/lesions-dynammo-resnet18-s1 /data/unknown",
    "dynammo classify runs/lesions-dynammo-resnet18-s1 /data/study --output /tmp/out --threshold 0.2 --saliency dicom",
)
def classify(
    ctx: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", envvar="HOLOSCAN_MODEL_PATH", help="a run or a model; models in the bundle"),
    ] = None,
    images: Annotated[str | None, typer.Argument(metavar="IMAGES", envvar=INPUTS, help="a folder; only read")] = None,
    output: Annotated[
        str, typer.Option("--output", metavar="DIR", envvar=OUTPUTS, help="a folder; all that is written to")
    ] = "eval",
    workers: Annotated[int, typer.Option("--workers", min=1, help="images read at the same time")] = 2,
    allow_refused: Annotated[
        bool, typer.Option("--allow_refused", help="refused images leave the exit status 0")
    ] = False,
    show: Show = False,
) -> Work:
    """Classify a folder of images, DICOM and NIfTI: a JSON file each, reports for DICOM, and lists of all.

    The folders may also be those that MONAI Deploy or mercure name in the environment; mercure's task.json may hold
    the options. Exit status: 0 all images are classified, 1 nothing could be done, 2 an unknown option, 3 some images
    are refused.
    """
    from scripts.commands.classify import Order, classify

    order = Order(run, images, output, tuple(ctx.meta[KEYS]), workers, allow_refused)
    return lambda: classify(order, show)


@keyed("dynammo evaluate runs/lesions-dynammo-resnet18-s1")
def evaluate(ctx: typer.Context, run: Run, show: Show = False) -> Work:
    """Write the confusion matrix, sensitivity, specificity and AUROC of a run, with intervals."""
    from scripts.commands.train import on_a_run

    return lambda: on_a_run(run, ("train", "evaluate"), "model", ctx.meta[KEYS], show)
