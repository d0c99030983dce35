"""Finds Triton, in the container or in the wheel nvidia-pytriton, and prepares it to run our models."""

from __future__ import annotations

import ctypes.util
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from nann.errors import ServerError
from nann.packages import find_package

CONTAINER = Path("/opt/tritonserver")
"""Where NVIDIA's containers have a complete Triton."""
BACKEND_TARGETS = frozenset(("tensorrt", "onnxruntime"))
"""Triton targets that need the backend of the same name; the others need only the Python backend."""
TARGET_PACKAGES = {"embedded": ("onnxruntime",), "torch": ("torch", "onnx")}
"""Packages that a target needs in the running Python, which also runs our models."""
_STUB = "triton_python_backend_stub"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class TritonInstall:
    """Where the parts of one Triton are.

    Attributes:
        server: the executable `tritonserver`.
        python_backend: folder with the Python backend's library.
        stub: the Python backend's process for the running Python version.
        libraries: folder with the shared libraries of all three; None if the system finds them.
    """

    server: Path
    python_backend: Path
    stub: Path
    libraries: Path | None

    def make_backend_directory(self, folder: Path) -> Path:
        """Makes a backend directory in `folder`: links to the Python backend, and the stub beside it.

        The installed package has no stub beside the backend. It is not changed, since environments with other Python
        versions may share it. If the stub is in place, as in a container, nothing is made.

        Returns:
            The backend directory.
        """
        if self.stub.parent == self.python_backend:
            return self.python_backend.parent
        backend = folder / "python"
        backend.mkdir(parents=True)
        for path in self.python_backend.iterdir():
            if path.is_file():
                (backend / path.name).symlink_to(path)
        (backend / _STUB).symlink_to(self.stub)
        return folder

    def check_target(self, target: str) -> None:
        """Checks that this Triton has the backend that a target needs, and this Python the packages.

        Raises:
            ModuleNotFoundError: if a package is not installed.
            ServerError: naming the targets that need none.
        """
        if target in BACKEND_TARGETS and not (self.python_backend.parent / target).is_dir():
            raise ServerError(
                f"the Triton in {self.server.parent} has no {target} backend; start it with `nann serve --target "
                "embedded` or torch, or in a container of Triton that has it"
            )
        for package in TARGET_PACKAGES.get(target, ()):
            find_package(package)

    def environment(self) -> dict[str, str]:
        """Environment variables of the server: ours, with additions to PATH and LD_LIBRARY_PATH."""
        environment = dict(os.environ)
        # The stub runs the first `python3` of PATH, which must be the one that runs now.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        libraries = [str(self.libraries or ""), *_python_library_folders(), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
        return environment


def find_triton() -> TritonInstall:
    """The container's Triton if there is one, otherwise that of the wheel nvidia-pytriton.

    Raises:
        ModuleNotFoundError: if it is not installed at all.
        ServerError: naming the missing part and how to get it.
    """
    if (CONTAINER / "bin" / "tritonserver").exists():
        return triton_at(CONTAINER)
    package = Path(find_package("pytriton").origin or "").parent
    root = package / "tritonserver"
    install = TritonInstall(
        server=root / "bin" / "tritonserver",
        python_backend=root / "backends" / "python",
        stub=root / "python_backend_stubs" / _PYTHON / _STUB,
        libraries=package.parent / "nvidia_pytriton.libs",
    )
    for path in (install.server, install.python_backend, install.stub):
        if not path.exists():
            raise ServerError(
                f"nvidia-pytriton has no {path.relative_to(package)} (Python {_PYTHON}); "
                "run `pip install 'nann[serve]'` with Python 3.10 to 3.12"
            )
    if not _python_library_folders() and ctypes.util.find_library(f"python{_PYTHON}") is None:
        raise ServerError(
            f"Triton's Python backend needs the shared library libpython{_PYTHON}.so.1.0, which was not found; "
            f"install it (Debian: libpython{_PYTHON}) or use a Python that was built with --enable-shared"
        )
    check_numpy()
    return install


def triton_at(root: Path) -> TritonInstall:
    """A complete Triton in a folder: `bin/tritonserver`, and `backends/python` with the stub in place."""
    backend = root / "backends" / "python"
    return TritonInstall(root / "bin" / "tritonserver", backend, backend / _STUB, None)


def check_numpy() -> None:
    """Refuses numpy 2: with it, the wheel's stub reports models as ready but returns every output empty.

    Raises:
        ServerError: naming the version found.
    """
    import numpy as np

    if int(np.__version__.split(".")[0]) >= 2:
        raise ServerError(
            f"numpy {np.__version__} is installed; Triton's Python backend in nvidia-pytriton needs numpy < 2: "
            "run `pip install 'nann[serve]'`"
        )


def has_gpu() -> bool:
    """Whether this machine or container has an NVIDIA GPU, on Linux or under Windows' WSL."""
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg"))


def _python_library_folders() -> list[str]:
    folder = Path(sysconfig.get_config_var("LIBDIR") or "")
    return [str(folder)] if (folder / f"libpython{_PYTHON}.so.1.0").exists() else []
