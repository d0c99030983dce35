"""The code inside Triton's Python processes, and the code that starts Triton.

The names in `__all__` are public (docs/python_api.md). They serve the side that starts Triton, so they are loaded on
first use: the processes inside Triton don't need them.
"""

from typing import TYPE_CHECKING

from nann.lazy_names import lazy_names

if TYPE_CHECKING:
    from .repository.install import install_bundle
    from .server.ports import free_ports
    from .server.triton import ServerOptions, TritonServer
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".repository.install": ("install_bundle",),
            ".server.ports": ("free_ports",),
            ".server.triton": ("ServerOptions", "TritonServer"),
        },
    )

__all__ = ["ServerOptions", "TritonServer", "free_ports", "install_bundle"]
