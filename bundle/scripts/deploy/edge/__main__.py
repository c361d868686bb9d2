"""Classify images with an exported model: ``python -m scripts.deploy.edge MODEL.onnx IMAGE [IMAGE ...]``.

Prints a line of JSON an image. Exit status: 0 all images are classified, 1 nothing could be done, 3 some are refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.deploy.edge.classifier import EdgeClassifier
from scripts.imaging.decoding.reasons import ImageRefused
from scripts.utils.errors import UserError

REFUSED = 3


def results(classifier: EdgeClassifier, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield what the model says of each picture, or why it is refused; folders are searched."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if path.is_dir() and (not file.is_file() or file.name.startswith(".")):
                continue
            for reference in classifier.pictures(str(file)):
                try:
                    yield {"image": reference, **classifier.classify(reference)}
                except ImageRefused as refusal:
                    yield {"image": reference, "refused": refusal.reason.value, "reason": str(refusal)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.deploy.edge", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="an ONNX file that configs/export.json wrote")
    parser.add_argument("images", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--threads", type=int, default=0, help="of the network (default: all cores)")
    given = parser.parse_args(arguments)
    status = 0
    try:
        for result in results(EdgeClassifier(given.model, given.threads), given.images):
            print(json.dumps(result), flush=True)
            status = REFUSED if "refused" in result else status
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
