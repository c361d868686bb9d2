"""The command as ``python -m dynammo``."""

from dynammo import main

main()
