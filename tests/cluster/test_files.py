"""The cluster files, each read by its own tool's loader or schema. None of it needs a network or an account."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

import nodes

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"


def loaded(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.mark.parametrize("name", ["aws.yaml", "local.yaml"])
def test_ray_up_accepts_the_file(name: str) -> None:
    config = prepare_config(loaded(name))
    validate_config(config)
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        validate_config(config | {"max_wrkers": 3})


def test_aws_starts_with_no_workers_and_curates_on_spot() -> None:
    types = loaded("aws.yaml")["available_node_types"]
    assert all(each.get("min_workers", 0) == 0 for each in types.values())
    assert types["head"]["resources"]["CPU"] == 0
    assert types["curation"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert types["training"]["resources"]["GPU"] > 0


def test_aws_node_configs_are_what_ec2_takes() -> None:
    """Against botocore's own model of RunInstances."""
    import botocore.session
    from botocore.validate import ParamValidator

    service = botocore.session.get_session().get_service_model("ec2")
    shape = service.operation_model("RunInstances").input_shape
    for each in loaded("aws.yaml")["available_node_types"].values():
        report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **each["node_config"]}, shape)
        assert not report.has_errors(), report.generate_report()


def test_shell_in_the_files_parses() -> None:
    aws, sky = loaded("aws.yaml"), loaded("lambda.yaml")
    scripts = [command for key, commands in aws.items() if key.endswith("_commands") for command in commands]
    for script in [*scripts, sky["setup"], sky["run"]]:
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert done.returncode == 0, f"{script}\n{done.stderr}"


def test_kuberay_takes_the_cluster() -> None:
    """No package ships KubeRay's schema: the keys of its CRD (v1, 1.6) stand here; the pods inside are checked against
    Kubernetes' own schema; and Ray's reader of the resource makes an autoscaling config of it that Ray accepts."""
    resource = loaded("kuberay/raycluster.yaml")
    assert (resource["apiVersion"], resource["kind"]) == ("ray.io/v1", "RayCluster")
    spec = resource["spec"]
    assert set(spec) <= {
        "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
        "headServiceAnnotations", "managedBy", "networkPolicy", "rayVersion", "suspend", "upgradeStrategy",
        "workerGroupSpecs",
    }  # fmt: skip
    assert set(spec["autoscalerOptions"]) <= {"version", "idleTimeoutSeconds", "upscalingMode", "resources", "env"}
    assert spec["autoscalerOptions"]["version"] in {"v1", "v2"} and spec["authOptions"] == {"mode": "token"}
    head = spec["headGroupSpec"]
    assert set(head) <= {"rayStartParams", "template", "resources", "labels", "serviceType"}
    for group in spec["workerGroupSpecs"]:
        required = {"groupName", "minReplicas", "maxReplicas", "template"}
        assert required <= set(group) <= required | {"replicas", "rayStartParams", "idleTimeoutSeconds", "resources"}
        assert 0 == group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [head, *spec["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            wrong = pod | {"spec": pod["spec"] | {"containrs": []}}
            kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)

    resource["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(resource)
    validate_config(config)
    resources = {name: each["resources"] for name, each in config["available_node_types"].items()}
    assert resources["headgroup"]["CPU"] == 0
    assert resources["curation"]["CPU"] == 8 and resources["training"]["GPU"] == 1


def test_skypilot_takes_the_task(tmp_path: Path) -> None:
    """In a process of its own: importing sky makes folders in the home directory."""
    code = """
import sys, yaml
from sky.utils import common_utils, schemas
task = yaml.safe_load(open(sys.argv[1]))
whole, resources = schemas.get_task_schema(), schemas.get_resources_schema()
common_utils.validate_schema(task, whole, "task: ")
common_utils.validate_schema(task["resources"], resources, "resources: ")
for wrong, schema in [({**task, "num_nods": 2}, whole), ({**task["resources"], "cloud": "lambada"}, resources)]:
    try:
        common_utils.validate_schema(wrong, schema, "")
    except ValueError:
        print("refused")
"""
    environment = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(CLUSTER / "lambda.yaml")],
        env=environment, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["refused", "refused"]


def test_versions_agree_with_the_constraints() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert loaded("kuberay/raycluster.yaml")["spec"]["rayVersion"] == pinned["ray"]


def test_every_cluster_asks_for_the_token() -> None:
    """Whoever reaches a Ray cluster without one runs what they like on it."""
    started = loaded("aws.yaml")
    [environment] = [each for each in started["setup_commands"] if "webtochat.env" in each]
    assert "RAY_AUTH_MODE=token" in environment
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert all(each.startswith(". ~/webtochat.env;") for each in started[key])
    run = loaded("lambda.yaml")["run"]
    assert run.index("RAY_AUTH_MODE=token") < run.index("ray start")
    assert loaded("lambda.yaml")["envs"]["RAY_AUTH_TOKEN"] is None  # SkyPilot asks for what is null
    assert loaded("kuberay/raycluster.yaml")["spec"]["authOptions"] == {"mode": "token"}
    for text in ((CLUSTER / "local.yaml").read_text(), (ROOT / "docs" / "cluster.md").read_text()):
        assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32)" in text


def test_no_secret_stands_in_the_files() -> None:
    for path in CLUSTER.rglob("*.yaml"):
        text = path.read_text()
        assert not re.search(r"AKIA[0-9A-Z]{16}|\b[0-9a-f]{40,}\b(?<!00000)|BEGIN [A-Z ]*PRIVATE KEY", text), path


@pytest.mark.parametrize(("cpus", "several"), [([4.0], False), ([4.0, 4.0], True), ([0.0], True), ([0.0, 2.0], True)])
def test_a_lone_head_without_cpus_counts_as_a_cluster(cpus: list[float], several: bool) -> None:
    assert nodes.several([{"Resources": {"CPU": each}} for each in cpus]) is several
