"""Writes the two files with the servers that Envoy sends requests to.

endpoints.py FOLDER HOST:HTTP_PORT:GRPC_PORT ...

Each file takes the place of the old one at once; Envoy watches the folder.
"""

import json
import os
import sys
from pathlib import Path


def endpoints(cluster: str, servers: list[tuple[str, int, int]]) -> dict:
    """A discovery response of Envoy's API: the servers of one cluster, with the port that tells readiness."""

    def endpoint(host: str, http: int, grpc: int) -> dict:
        port = grpc if cluster == "nann_grpc" else http
        address = {"socket_address": {"address": host, "port_value": port}}
        return {"endpoint": {"address": address, "health_check_config": {"port_value": http}}}

    return {
        "version_info": "0",
        "resources": [
            {
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster,
                "endpoints": [{"lb_endpoints": [endpoint(*server) for server in servers]}],
            }
        ],
    }


def write(folder: Path, servers: list[tuple[str, int, int]]) -> None:
    """Writes both files. JSON is YAML."""
    for kind in ("grpc", "http"):
        path = folder / f"endpoints-{kind}.yaml"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(endpoints(f"nann_{kind}", servers), indent=1))
        os.replace(temporary, path)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    parts = [server.rsplit(":", 2) for server in sys.argv[2:]]
    write(Path(sys.argv[1]), [(host, int(http), int(grpc)) for host, http, grpc in parts])
