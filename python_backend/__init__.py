"""What runs inside Triton's Python processes, and what starts Triton.

What stands in `__all__` is public (docs/python_api.md). It belongs to the side that starts Triton, so importing the
package alone does not load it: the processes inside Triton don't need it.
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
