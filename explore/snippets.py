"""A question as a command of curl and as a program in Python, to copy."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nann.item_ids import IdKind, Ids
from nann.signature import BEHAVIOR_ITEM_IDS, ENSEMBLE, EXCLUDE_ITEM_IDS, USER_ID, USER_PROFILE, TensorSpec

from ..clients import Tls
from .asked import Asked


def as_curl(asked: Asked, item_ids: Ids, kind: IdKind, http_url: str, trust: Tls | None = None) -> str:
    """The request over KServe V2, to a URL; `item_ids` are those of the bundle."""
    history, excluded = (_ids(listed, item_ids, kind) for listed in (asked.items, asked.excluded))
    inputs = []
    if history or asked.user_id is None:
        inputs.append(_tensor(kind.spec(BEHAVIOR_ITEM_IDS), history or [kind.request_padding]))
    if asked.user_id is not None:
        inputs.append(_tensor(USER_ID, [asked.user_id]))
    if asked.profile is not None:
        inputs.append(_tensor(USER_PROFILE, asked.profile))
    if excluded:
        inputs.append(_tensor(kind.spec(EXCLUDE_ITEM_IDS), excluded))
    text = json.dumps({"inputs": inputs, "parameters": asked.options.to_parameters()}, ensure_ascii=False)
    files = _files(trust) if http_url.startswith("https:") else {}
    options = {"ca": "--cacert", "certificate": "--cert", "key": "--key"}
    trusted = [word for name, path in files.items() for word in (options[name], path)]
    return shlex.join(["curl", "-s", *trusted, f"{http_url}/v2/models/{ENSEMBLE.name}/infer", "-d", text])


def as_python(asked: Asked, item_ids: Ids, kind: IdKind, grpc_url: str, trust: Tls | None = None) -> str:
    """The same with the client of this package."""
    history, excluded = (_ids(listed, item_ids, kind) for listed in (asked.items, asked.excluded))
    arguments = [repr(history)] if history or asked.user_id is None else []
    named: dict[str, Any] = {"user_id": asked.user_id, "exclude_item_ids": excluded or None}
    if asked.profile is not None:
        named["user_profile"] = [list(asked.profile)]
    named |= asked.options.to_parameters()
    arguments += [f"{name}={value!r}" for name, value in named.items() if value is not None]
    given = "".join(f"        {argument},\n" for argument in arguments)
    files = ", ".join(f"{name}={path!r}" for name, path in _files(trust).items())
    imported, opened = ("", "") if trust is None else (", Tls", f", tls=Tls({files})")
    return (
        f"from nann.clients import RetrievalClient{imported}\n\n"
        f"with RetrievalClient({grpc_url!r}{opened}) as client:\n"
        f"    result = client.retrieve(\n{given}    )\n"
        "print(result.item_ids, result.scores)\n"
    )


def _tensor(spec: TensorSpec, values: Sequence[Any]) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.triton_dtype, "shape": [1, len(values)], "data": list(values)}


def _files(trust: Tls | None) -> dict[str, str]:
    """The TLS files by what they are, so that a copy works in any folder."""
    files = {} if trust is None else vars(trust)
    return {name: str(Path(path).resolve()) for name, path in files.items() if path is not None}


def _ids(items: Sequence[int], item_ids: Ids, kind: IdKind) -> list[Any]:
    return kind.plain(item_ids[list(items)]) if items else []
