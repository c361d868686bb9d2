"""The command ``dynammo`` where it is not installed: ``python -m scripts.commands`` from the bundle's folder."""

import sys

from scripts.commands.app import main

sys.exit(main())
