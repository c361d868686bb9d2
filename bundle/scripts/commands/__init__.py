"""Commands around a finished run, each started with ``python -m scripts.commands.<name>`` from the bundle's folder."""
