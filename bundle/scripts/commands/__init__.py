"""Commands before and after a run, each started with ``python -m scripts.commands.<name>`` from the bundle's folder."""
