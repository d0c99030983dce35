"""A question as a command of curl and as a program in Python, to copy."""

from __future__ import annotations

import json
import shlex
from typing import Any

from nann.item_ids import IdKind
from nann.signature import BEHAVIOR_ITEM_IDS, ENSEMBLE, USER_ID, USER_PROFILE

from .asked import Asked


def as_curl(asked: Asked, ids: list[Any], kind: IdKind, http_url: str) -> str:
    """The request over KServe V2; `ids` are the external ids of the question's items, `http_url` is host:port."""
    inputs = []
    if ids or asked.user_id is None:
        tensor = kind.spec(BEHAVIOR_ITEM_IDS)
        shown = ids or [kind.request_padding]
        inputs.append({"name": tensor.name, "datatype": tensor.triton_dtype, "shape": [1, len(shown)], "data": shown})
    if asked.user_id is not None:
        inputs.append({"name": USER_ID.name, "datatype": "BYTES", "shape": [1, 1], "data": [asked.user_id]})
    if asked.profile is not None:
        shape = [1, len(asked.profile)]
        inputs.append({"name": USER_PROFILE.name, "datatype": "INT64", "shape": shape, "data": list(asked.profile)})
    body = {"inputs": inputs, "parameters": asked.options.to_parameters()}
    text = json.dumps(body, ensure_ascii=False)
    return f"curl -s http://{http_url}/v2/models/{ENSEMBLE.name}/infer -d {shlex.quote(text)}"


def as_python(asked: Asked, ids: list[Any], grpc_url: str) -> str:
    """The same with the client of this package; `grpc_url` is host:port."""
    arguments = [repr(ids)] if ids or asked.user_id is None else []
    if asked.user_id is not None:
        arguments.append(f"user_id={asked.user_id!r}")
    if asked.profile is not None:
        arguments.append(f"user_profile=[{list(asked.profile)}]")
    arguments += [f"{name}={value!r}" for name, value in asked.options.to_parameters().items()]
    given = "".join(f"        {argument},\n" for argument in arguments)
    return (
        "from nann.clients import RetrievalClient\n\n"
        f"with RetrievalClient({grpc_url!r}) as client:\n"
        f"    result = client.retrieve(\n{given}    )\n"
        "print(result.item_ids, result.scores)\n"
    )
