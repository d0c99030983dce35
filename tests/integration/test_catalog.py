"""Filters that are set over the network, by whoever has the admin key and by nobody else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from support.certificates import make_certificate
from support.cli_commands import nann, refused
from support.live_bundle import attributes, item_ids, make_bundle
from support.own_server import own_server, server_options
from tritonclient.utils import InferenceServerException

from nann.clients import RetrievalClient, Tls
from nann.errors import ConfigError, RequestError, ServerError
from nann.python_backend.repository.deploy import deploy
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.admin_key import GRPC_ADMIN_HEADER
from nann.python_backend.server.control import ModelControl
from nann.python_backend.server.tls import ServerTls
from nann.python_backend.server.triton import TritonServer
from nann.signature import FILTER_ITEM_IDS

pytestmark = pytest.mark.triton

KEY = "fedcba9876543210"
ALL = item_ids()
PRICES = attributes()["price"]
WRONG = (None, "", KEY[:-1], f"{KEY}0", KEY.upper())


def below(price: float) -> int:
    return sum(each is not None and each < price for each in PRICES)


class OverGrpc:
    """What `ModelControl` is over HTTP."""

    def __init__(self, url: str, key: str | None, **tls: object) -> None:
        self._client = triton_grpc.InferenceServerClient(url, **tls)
        self._headers = None if key is None else {GRPC_ADMIN_HEADER: key}

    def catalog(self, operation: str, tensors=None, **parameters: str):
        sent = [triton_grpc.InferInput("operation", [1, 1], "BYTES")]
        sent[0].set_data_from_numpy(np.array([[operation]], object))
        for spec, array in (tensors or {}).items():
            sent.append(triton_grpc.InferInput(spec.name, list(array.shape), spec.triton_dtype))
            sent[-1].set_data_from_numpy(array)
        answer = self._client.infer("catalog", sent, parameters=parameters, headers=self._headers)
        return json.loads(answer.as_numpy("answer").item())


@pytest.fixture(scope="module")
def folder(live_bundle_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("operated")
    install_bundle(live_bundle_path, folder / "repository")
    return folder


@pytest.fixture(scope="module")
def certificate(folder):
    return make_certificate(folder, "server")


@pytest.fixture(scope="module")
def operated(folder, certificate):
    """With an admin key, TLS, and no inference over HTTP."""
    options = server_options(folder, admin_key=KEY, tls=ServerTls(*certificate), http_inference=False)
    with TritonServer(options) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def access(request, operated, certificate):
    """Makes the catalog of one protocol for a key."""
    if request.param == "http":
        return lambda key: ModelControl(operated.http_url, key)
    tls = {"ssl": True, "root_certificates": str(certificate[0])}
    return lambda key: OverGrpc(operated.grpc_url, key, **tls)


@pytest.fixture
def client(operated, certificate):
    with RetrievalClient(operated.grpc_url, timeout_s=20, tls=Tls(certificate[0])) as client:
        yield client


def matching(client, name: str) -> int:
    return int(client.retrieve(ALL[20:25], filter_name=name).items_matching[0])


def test_the_key_alone_opens_it_and_the_next_request_follows(access, client):
    for key in WRONG:
        with pytest.raises((ConfigError, InferenceServerException), match=r"without the admin key|refused the admin"):
            access(key).catalog("set_filter", name="stock", filter="price < 1")
    catalog = access(KEY)
    for price in (3, 7, 2):
        answer = catalog.catalog("set_filter", name="stock", filter=f"price < {price}")
        assert answer["items_matching"] == below(price) == matching(client, "stock")
    with pytest.raises((ServerError, InferenceServerException), match=r"position 8: got the end; expected a number"):
        catalog.catalog("set_filter", name="stock", filter="price <")
    assert matching(client, "stock") == below(2), "the old one stays"
    assert (
        catalog.catalog(
            "set_filter", {FILTER_ITEM_IDS: np.array([[str(each) for each in (*ALL[:4], 5)]], object)}, name="few"
        )["unknown_ids"]
        == 1
    )
    assert matching(client, "few") == 4
    names = [each["name"] for each in catalog.catalog("list_filters")["filters"]]
    assert names == ["available_de", "few", "stock"]
    for name in ("stock", "few"):
        catalog.catalog("remove_filter", name=name)
        with pytest.raises(RequestError, match="expected one of: available_de"):
            client.retrieve(ALL[20:25], filter_name=name)


def test_without_a_key_it_is_closed_to_everybody(server):
    for access in (ModelControl(server.http_url, None), OverGrpc(server.grpc_url, "guess")):
        with pytest.raises((ConfigError, InferenceServerException), match=r"without the admin key|refused the admin"):
            access.catalog("list_filters")


def test_the_key_opens_no_other_model_over_grpc_and_reaches_no_log(operated, certificate):
    tls = {"ssl": True, "root_certificates": str(certificate[0])}
    client = triton_grpc.InferenceServerClient(operated.grpc_url, **tls)
    headers = {GRPC_ADMIN_HEADER: KEY}
    client.update_log_settings({"log_verbose_level": 2}, headers=headers)
    ids = triton_grpc.InferInput("behavior_item_ids", [1, 1], "INT64")
    ids.set_data_from_numpy(ALL[None, :1])
    with pytest.raises(InferenceServerException, match="feature_transform can't be called from outside"):
        client.infer("feature_transform", [ids], headers=headers)
    assert client.infer("nann", [ids], headers=headers).as_numpy("item_ids").shape == (1, 20)
    OverGrpc(operated.grpc_url, KEY, **tls).catalog("list_filters")
    client.update_log_settings({"log_verbose_level": 0}, headers=headers)
    log = operated.options.log_file.read_text()
    assert "behavior_item_ids" in log, "verbose, so that it tells of the requests"
    assert KEY not in log


def test_the_commands_a_deploy_and_a_restart(live_bundle_path, tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)

    def check(server):
        with RetrievalClient(server.grpc_url, timeout_s=20) as client:
            assert matching(client, "stock") == below(4)

    with own_server(live_bundle_path, tmp_path, admin_key=KEY) as server:
        at = ("--url", server.http_url, "--admin-key-file", key)
        ended = nann("filters", "set", "stock", "price < 4", *at, "--json")
        assert (ended.code, ended.json["items_matching"]) == (0, below(4)), ended
        assert "position 8: got the end" in refused("filters", "set", "stock", "price <", *at)
        assert "the admin key; pass the file that" in refused("filters", "list", "--url", server.http_url)
        deploy(make_bundle(tmp_path / "second", seed=3).path, server.options.repository, server.control)
        check(server)
        (tmp_path / "ids").write_text("\n".join(map(str, ALL[:9])))
        assert nann("filters", "set", "few", "--ids", tmp_path / "ids", *at, "--json").json["items_matching"] == 9
    with own_server(live_bundle_path, tmp_path, admin_key=KEY) as server:
        at = ("--url", server.http_url, "--admin-key-file", key)
        check(server)
        assert nann("filters", "remove", "few", *at).code == 0
        assert [each["name"] for each in nann("filters", "list", *at, "--json").json["filters"]] == [
            "available_de",
            "stock",
        ]
