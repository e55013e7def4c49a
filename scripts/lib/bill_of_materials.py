#!/usr/bin/env python3
"""What is inside the programs: a bill of materials (CycloneDX 1.5), and the licence texts of all crates in one file.

usage: bill_of_materials.py FOLDER PROGRAM...    writes FOLDER/sbom.cdx.json and FOLDER/LICENSES-OF-DEPENDENCIES.txt

Made from `cargo metadata` and Cargo.lock, offline, for the machine that it runs on. The same sources give the same files: there is no
time and no random number in them.
"""

import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LICENCE_NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT")


def main():
    folder, *programs = sys.argv[1:]
    target = next(line[6:] for line in output("rustc", "-vV").splitlines() if line.startswith("host: "))
    metadata = json.loads(output("cargo", "metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", target))
    packages = {package["id"]: package for package in metadata["packages"]}
    edges = {node["id"]: linked(node) for node in metadata["resolve"]["nodes"]}
    roots = [package["id"] for package in packages.values() if package["name"] in programs and package["source"] is None]
    if len(roots) != len(programs):
        sys.exit(f"error: not all of {', '.join(programs)} are packages of this workspace")
    wanted = sorted(reached(roots, edges), key=lambda one: (packages[one]["name"], packages[one]["version"]))
    bill = bill_of(roots, wanted, packages, edges)
    (Path(folder) / "sbom.cdx.json").write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (Path(folder) / "LICENSES-OF-DEPENDENCIES.txt").write_text(licences(wanted, packages), encoding="utf-8")


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def linked(node):
    """What ends up in the program: not what only builds or tests it."""
    return [one["pkg"] for one in node["deps"] if any(kind["kind"] is None for kind in one["dep_kinds"])]


def reached(roots, edges):
    found, pending = set(), list(roots)
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += edges[one]
    return found


def bill_of(roots, wanted, packages, edges):
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    components = [component(packages[one], checksums) for one in wanted]
    text = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, text)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "gpuctl-release", "name": "gpuctl", "version": packages[roots[0]]["version"]}},
        "components": components,
        "dependencies": [{"ref": "gpuctl-release", "dependsOn": sorted(reference(packages[one]) for one in roots)}]
        + [{"ref": reference(packages[one]), "dependsOn": sorted({reference(packages[to]) for to in edges[one]})} for one in wanted],
    }


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    own = package["source"] is None
    entry = {
        "type": "application" if own else "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
        # Some crates still write the `/` of old manifests.
        "licenses": [{"expression": (package["license"] or "NOASSERTION").replace("/", " OR ")}],
    }
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def licences(wanted, packages):
    """Each text once, below the crates that have it; crates without a file are named with their licence."""
    crates_of, without = {}, []
    for one in wanted:
        package = packages[one]
        if package["source"] is None:
            continue
        name = f"{package['name']} {package['version']} ({package['license'] or 'see its file'})"
        texts = licence_texts(Path(package["manifest_path"]).parent)
        if not texts:
            without.append(name)
        for text in texts:
            crates_of.setdefault(text, []).append(name)
    rule = "=" * 80
    parts = ["The programs contain the crates below. Each licence text stands below the crates that have it.\n"]
    for text, names in sorted(crates_of.items(), key=lambda item: item[1]):
        parts.append(f"{rule}\n" + "\n".join(names) + f"\n{'-' * 80}\n{text}")
    if without:
        parts.append(f"{rule}\nWithout a licence file of their own:\n" + "\n".join(without) + "\n")
    return "\n".join(parts)


def licence_texts(folder):
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name.upper().startswith(LICENCE_NAMES)]
    return sorted({path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip() + "\n" for path in files})


if __name__ == "__main__":
    main()
