"""Write the bill of materials of the software, CycloneDX: ``python tools/sbom.py dist/sbom.cdx.json``.

It lists what the installed package needs to run, at the versions of this environment: neither its extras nor the tools
of those who develop it. ``cyclonedx-py`` finds the packages and their licences.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "dynammo-bundle"


def bill() -> dict[str, Any]:
    """Return the bill: of all that is installed here, what is reached from the package."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON"]
    whole = json.loads(subprocess.run([*command, sys.executable], check=True, capture_output=True, text=True).stdout)
    names = {component["bom-ref"]: canonicalize_name(component["name"]) for component in whole["components"]}
    (root,) = (ref for ref, name in names.items() if name == ROOT)
    kept = {ref for ref, name in names.items() if name in needed(ROOT)}
    components = {component["bom-ref"]: component for component in whole["components"]}
    whole["metadata"]["component"] = {
        key: value for key, value in components[root].items() if key not in ("purl", "externalReferences")
    } | {"type": "application"}
    whole["components"] = [components[ref] for ref in sorted(kept - {root})]
    whole["dependencies"] = [
        {"ref": one["ref"], "dependsOn": [ref for ref in one.get("dependsOn", []) if ref in kept]}
        for one in whole["dependencies"]
        if one["ref"] in kept
    ]
    return whole


@cache
def needed(name: str, extras: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the canonical names of a package and all that it needs here, with some of its extras."""
    found = {canonicalize_name(name)}
    for one in map(Requirement, requires(name) or []):
        environments = [{"extra": extra} for extra in extras | {""}]
        if one.marker is None or any(map(one.marker.evaluate, environments)):
            found |= needed(canonicalize_name(one.name), frozenset(one.extras))
    return frozenset(found)


def main(target: Path) -> None:
    """Write the bill.

    Raises:
        SystemExit: it does not fit CycloneDX's schema.
    """
    text = json.dumps(bill(), indent=2) + "\n"
    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise SystemExit(f"Error: the bill does not fit CycloneDX's schema: {error}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(f"{len(json.loads(text)['components'])} components: {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
