"""The Helm chart: linted, rendered, validated against the schemas of three Kubernetes versions. No cluster is asked."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile

import kubernetes_validate
import pytest
import yaml
from support.helm import CHART, ROOT, helm, template

GOLDEN = ROOT / "tests" / "golden" / "helm"
CASES = sorted(path.name.split(".")[0] for path in GOLDEN.glob("*.values.yaml"))
VERSIONS = ("1.31", "1.34", "1.37")
OF_OPERATORS = {"serving.kserve.io/v1beta1", "keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
"""Kinds that Kubernetes itself has no schema of."""
CLAIM = ("--set", "bundle.claim.name=bundles")


def rendered(case: str) -> str:
    return template("--values", GOLDEN / f"{case}.values.yaml").stdout


def resources(text: str) -> dict[str, dict]:
    """By kind; services also by whether they are headless."""
    found = {}
    for one in yaml.safe_load_all(text):
        found[
            one["kind"] + ("Headless" if one["spec"].get("clusterIP") == "None" else "")
            if "spec" in one
            else one["kind"]
        ] = one
    return found


def test_lint_finds_nothing():
    done = subprocess.run([helm(), "lint", "--strict", CHART, *CLAIM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("case", CASES)
def test_what_it_renders_is_what_was_read(case):
    path = GOLDEN / f"{case}.yaml"
    if os.environ.get("NANN_WRITE_GOLDEN"):
        path.write_text(rendered(case))
    assert rendered(case) == path.read_text()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_it(case, version):
    validated = []
    for one in yaml.safe_load_all(rendered(case)):
        if one["apiVersion"] not in OF_OPERATORS:
            kubernetes_validate.validate(one, version, strict=True)
            validated.append(one["kind"])
    assert "ServiceAccount" in validated


def test_the_validation_would_notice_a_misspelt_key():
    deployment = resources(rendered("cpu"))["Deployment"]
    deployment["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_inference_service_says_of_pods_is_a_pods(version):
    predictor = resources(rendered("kserve"))["InferenceService"]["spec"]["predictor"]
    spec = {key: value for key, value in predictor.items() if key not in ("minReplicas", "maxReplicas")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.slow
def test_kserve_has_every_field_of_the_inference_service(tmp_path):
    """Its Python package, which is not installed for that, names the fields of each type."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path, "kserve==0.21.0"]
    subprocess.run(command, check=True, timeout=200)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:

        def fields(type_name: str) -> set[str]:
            tree = ast.parse(wheel.read(f"kserve/models/{type_name}.py"))
            (named,) = (
                ast.literal_eval(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "attribute_map"
            )
            return set(named.values())

        service = resources(rendered("kserve"))["InferenceService"]
        assert set(service) <= fields("v1beta1_inference_service")
        assert set(service["spec"]) <= fields("v1beta1_inference_service_spec")
        assert set(service["spec"]["predictor"]) <= fields("v1beta1_predictor_spec")


@pytest.mark.parametrize(
    ("case", "kind"), [("cpu", "Deployment"), ("gpu", "Deployment"), ("kserve", "InferenceService")]
)
def test_pods_have_what_the_images_need_and_no_rights(case, kind):
    spec = resources(rendered(case))[kind]["spec"]
    pod = spec["template"]["spec"] if kind == "Deployment" else spec["predictor"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts) >= {"/bundle", "/var/lib/nann", "/tmp", "/dev/shm"}
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_selectors_find_the_pods_and_the_monitor_one_service():
    found = resources(rendered("gpu"))
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind, path in (("Service", ()), ("ServiceHeadless", ()), ("PodDisruptionBudget", ("matchLabels",))):
        selector = found[kind]["spec"]["selector"]
        for key in path:
            selector = selector[key]
        assert selector.items() <= labels.items(), kind
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    monitor = found["ServiceMonitor"]["spec"]["selector"]
    for kind, taken in (("Service", True), ("ServiceHeadless", False)):
        of = found[kind]["metadata"]["labels"]
        assert monitor["matchLabels"].items() <= of.items()
        assert ("nann/headless" not in of) == taken
    assert "replicas" not in found["Deployment"]["spec"]  # the autoscaler's
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]


def test_the_admin_key_is_a_secret_that_pods_read():
    found = resources(rendered("cpu"))
    assert found["Secret"]["stringData"] == {"admin-key": "0123abc"}
    (variable,) = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": found["Secret"]["metadata"]["name"], "key": "admin-key"}
    assert "Secret" not in resources(rendered("gpu"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected one source of the bundle, bundle.image.reference or bundle.claim.name; got none"),
        ((*CLAIM, "--set", "bundle.image.reference=a/b:1"), "bundle.image.reference or bundle.claim.name; got both"),
        ((*CLAIM, "--set", "target=tensorrt"), "the target tensorrt needs plansClaim"),
        ((*CLAIM, "--set", "target=cuda"), "value must be one of 'embedded', 'torch', 'onnxruntime', 'tensorrt'"),
        ((*CLAIM, "--set", "replica=3"), "additional properties 'replica' not allowed"),
        ((*CLAIM, "--set", "adminKey.value=a b"), "'/adminKey/value'"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(options, message):
    done = template(*options, check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_values_of_the_schema_are_those_of_the_file():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)


def test_images_and_ports_are_the_dockerfiles():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    container = resources(rendered("cpu"))["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    exposed = dockerfile.split("EXPOSE ")[1].splitlines()[0].split()
    assert [str(port["containerPort"]) for port in container["ports"]] == exposed
    assert "command" not in container  # the image's entry point stays
    assert container["readinessProbe"]["httpGet"]["path"] in dockerfile
