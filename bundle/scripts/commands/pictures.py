"""Draw what the network of a run has learnt."""

from __future__ import annotations

from pathlib import Path

from scripts.utils.files import require_folder

FOLDER = "pictures"


def pictures(run: str, image: str | None = None, output: Path | None = None) -> str:
    """Write the pictures.

    Args:
        run: its folder.
        image: a file whose feature maps are drawn; ``None``: of none.
        output: the folder; ``None``: ``pictures`` in the run's folder.

    Returns:
        What was drawn, a line a picture.

    Raises:
        UserError: when the folder holds no run, its test images are gone, or the image cannot be read.
    """
    require_folder(run, "run", "RUN")
    from scripts.commands.reporting.answers import answers_of  # takes seconds
    from scripts.commands.reporting.representations import figures_of, require_image
    from scripts.pictures.canvas import save_figure

    if image is not None:
        require_image(image)
    folder, lines = output or Path(run) / FOLDER, []
    for name, title, figure in figures_of(Path(run), answers_of(Path(run)), image):
        save_figure(folder / f"{name}.png", figure)
        lines.append(f"{folder / f'{name}.png'}: {title}.")
    return "\n".join(lines)
