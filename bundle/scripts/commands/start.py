"""The first step of a training: all that is wrong with what was given is said before an image is opened."""

from __future__ import annotations

import warnings

from scripts.commands.keys import check_keys
from scripts.commands.take_over import go_on
from scripts.commands.track import track
from scripts.learning.run_config import check_run, config_of
from scripts.utils.process import prepare_process
from scripts.utils.running import running_parser


def start() -> None:
    """Check the keys, take over the config of the run before, and look whether the output folder holds another run.

    Raises:
        UserError: says what to change.
    """
    prepare_process()
    warnings.filterwarnings("ignore", message="NvImgCodec")
    check_keys()
    parser = running_parser()
    track(parser)
    go_on(parser.get_parsed_content("previous"))
    folder, restart = parser.get_parsed_content("output_dir"), parser.get_parsed_content("restart")
    check_run(folder, config_of(parser), restart)
