"""What `gpu_pools.py` needs on a machine without a network: wheels brought along, an environment, what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).with_name("gpu_constraints.txt")
WHEELS = ".wheels"
MIB = 2**20
PYTHON = "3.12"
PLATFORMS = ("manylinux1", "manylinux2014", *(f"manylinux_2_{minor}" for minor in (5, 17, 24, 27, 28)))
IMPORTED = ("torch", "torchvision", "prefect", "diffusers", "transformers", "polars", "pyarrow", "ncnn", "onnxruntime")


def constraints(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Versions that are brought along (`==`), and the least ones of what has to be there (`>=`), by distribution."""
    brought: dict[str, str] = {}
    there: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            for sign, versions in (("==", brought), (">=", there)):
                name, found, version = line.partition(sign)
                if found:
                    versions[name] = version
    return brought, there


def parts_of(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names put into as few parts as the simplest way finds, none larger than `most`: each where it first fits.

    Raises:
        ValueError: one alone is too large.
    """
    parts: list[list[str]] = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if sizes[name] > most:
            raise ValueError(f"{name} has {sizes[name] / MIB:.1f} MiB, a part at most {most / MIB:.1f}")
        for part in parts:
            if sum(sizes[other] for other in part) + sizes[name] <= most:
                part.append(name)
                break
        else:
            parts.append([name])
    return parts


def prepare(into: Path, most: int) -> int:
    """Download what is brought along into numbered folders."""
    brought, there = constraints(CONSTRAINTS.read_text(encoding="utf-8"))
    shutil.rmtree(into, ignore_errors=True)
    fetched = into / "fetched"
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
    command += ["--implementation", "cp", "--python-version", PYTHON, "--dest", str(fetched)]
    subprocess.run([*command, *(f"{name}=={version}" for name, version in brought.items())], check=True)
    sizes = {path.name: path.stat().st_size for path in fetched.glob("*.whl")}
    for number, names in enumerate(parts_of(sizes, most), 1):
        (into / str(number)).mkdir()
        for name in names:
            (fetched / name).rename(into / str(number) / name)
        print(f"{into / str(number)}: {len(names)} wheels, {sum(sizes[name] for name in names) / MIB:.1f} MiB")
    fetched.rmdir()
    print(f"together {sum(sizes.values()) / MIB:.1f} MiB")
    print(f"left out, to be there already: {', '.join(f'{name}>={version}' for name, version in there.items())}")
    return 0


def install(environment: Path, wheels: Sequence[Path]) -> None:
    """An environment beside this Python's, in which what is brought along goes before what is there."""
    python = environment / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        # Where this Python is an environment itself, `--system-site-packages` would show those of the system, not its.
        folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        shown = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
        (packages / "there.pth").write_text(shown, encoding="utf-8")
    files = [str(file) for folder in wheels for file in sorted(folder.glob("*.whl"))]
    if wheels and not files:
        raise SystemExit(f"no wheels in {', '.join(map(str, wheels))}: run prepare where there is a network")
    if files:
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--no-compile", "--ignore-installed", *files], check=True)
        subprocess.run([str(python), "-m", "compileall", "-q", "-q", "-j", "0", str(packages)], check=False)


def missing(text: str, version_of: Callable[[str], str], importing: Callable[[str], Any]) -> list[str]:
    """What an environment lacks of the constraints, and what cannot be imported, one sentence each."""
    from packaging.version import Version

    brought, there = constraints(text)
    lacking = []
    for name, least in (brought | there).items():
        try:
            found = version_of(name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"{name} is not installed: {least if name in brought else f'at least {least}'} is needed")
            continue
        right = Version(found) >= Version(least) if name in there else Version(found) == Version(least)
        if not right:
            lacking.append(f"{name} {found} is installed: {least} {'or later ' * (name in there)}is needed")
    for module in IMPORTED:
        try:
            importing(module)
        except Exception as error:
            lacking.append(f"{module} cannot be imported: {type(error).__name__}: {error}")
    return lacking
