"""What deploy/ and docs/cluster.md show: KubeRay knows the fields, coat and Ray the commands, metrics their names."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from coat.pipeline.extraction.metrics import COUNTERS, GAUGES, HISTOGRAMS
from tests.integration.helpers import ROOT, parse_coat

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kuberay").glob("*.yaml"))
JOBS = [p for p in MANIFESTS if p.name != "cluster.yaml"]

# The fields that the manifests rely on, with their types and enums, as in the API reference of KubeRay v1.7.0
# (ray.io/v1). A tuple is an enum, a dict an object with just these fields, a list an array of what is in it.
CONTAINER = {
    "name": str,
    "image": str,
    "env": [{"name": str, "value": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str, "optional": bool}}}],
    "ports": [{"name": str, "containerPort": int}],
    "resources": {"requests": dict, "limits": dict},
    "volumeMounts": [{"name": str, "mountPath": str}],
}
POD = {
    "serviceAccountName": str,
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "terminationGracePeriodSeconds": int,
    "volumes": [{"name": str, "emptyDir": {"sizeLimit": str}}],
    "tolerations": [{"key": str, "operator": ("Exists", "Equal"), "effect": ("NoSchedule", "NoExecute")}],
    "containers": [CONTAINER],
}
RAY_CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": ("disabled", "token")},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"upscalingMode": ("Default", "Aggressive", "Conservative"), "idleTimeoutSeconds": int},
    "headGroupSpec": {"rayStartParams": dict, "template": {"spec": POD}},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "rayStartParams": dict,
            "template": {"spec": POD},
        }
    ],
}
RAY_JOB = {
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "submitterConfig": {"backoffLimit": int},
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "preRunningDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "rayClusterSpec": RAY_CLUSTER,
}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def faults(value: Any, schema: Any, at: str = "spec") -> list[str]:
    """Where a value is not what the schema says."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{at}: not an object"]
        unknown = [f"{at}.{key}: no such field" for key in value.keys() - schema.keys()]
        return unknown + [f for k in value.keys() & schema.keys() for f in faults(value[k], schema[k], f"{at}.{k}")]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{at}: not an array"]
        return [f for i, item in enumerate(value) for f in faults(item, schema[0], f"{at}[{i}]")]
    if isinstance(schema, tuple):
        return [] if value in schema else [f"{at}: {value!r} is not one of {schema}"]
    return [] if type(value) is schema else [f"{at}: {value!r} is not {schema.__name__}"]


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_kuberay_knows_every_field(path: Path) -> None:
    manifest = read(path)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", manifest["metadata"]["name"])
    schema = {"RayCluster": RAY_CLUSTER, "RayJob": RAY_JOB}[manifest["kind"]]
    assert faults(manifest["spec"], schema) == []
    required = schema.keys() if manifest["kind"] == "RayJob" else {"headGroupSpec", "workerGroupSpecs"}
    assert required <= manifest["spec"].keys()


def test_the_check_finds_what_is_wrong() -> None:
    spec = read(JOBS[0])["spec"]
    spec["submissionMode"] = "JobMode"
    spec["backoffLimits"] = 3
    spec["rayClusterSpec"]["workerGroupSpecs"][0]["minReplicas"] = "0"
    spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"] = {"A": "b"}
    assert len(faults(spec, RAY_JOB)) == 4


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_pods_have_what_ray_needs(path: Path) -> None:
    cluster = cluster_of(read(path))
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["authOptions"] == {"mode": "token"}
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    assert cluster["rayVersion"] == pinned["ray"]
    groups = {g["groupName"]: g for g in cluster["workerGroupSpecs"]}
    assert len(groups) == len(cluster["workerGroupSpecs"])
    for group in [cluster["headGroupSpec"], *groups.values()]:
        assert all(isinstance(v, str) for v in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert {"cpu", "memory"} <= resources["limits"].keys()
        mounted = {m["name"] for m in container["volumeMounts"]}
        assert mounted == {v["name"] for v in group["template"]["spec"]["volumes"]}
        secrets = [e for e in container["env"] if re.search("KEY|SECRET|TOKEN", e["name"])]
        assert secrets
        assert all("secretKeyRef" in e["valueFrom"] for e in secrets)
    for name, group in groups.items():
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "gpu")
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_cluster_that_stays_has_both_groups() -> None:
    assert {g["groupName"] for g in read(DEPLOY / "kuberay" / "cluster.yaml")["spec"]["workerGroupSpecs"]} == {
        "cpu",
        "gpu",
    }


@pytest.mark.parametrize("path", JOBS, ids=lambda p: p.name)
def test_a_job_runs_a_command_that_fits_its_cluster(path: Path) -> None:
    spec = read(path)["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:3] == ["python", "-m", "coat"]
    options = parse_coat(words[3:])
    assert options["ray_address"] == "auto"
    assert yaml.safe_load(spec["runtimeEnvYAML"]).keys() <= {"env_vars", "working_dir", "pip", "excludes"}
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    per_pod = int(limits["cpu"]) // (options.get("cpus_per_worker") or 1)
    if options.get("device") == "cuda":
        per_pod = min(per_pod, int(int(limits["nvidia.com/gpu"]) / options["gpus_per_worker"]))
    assert options["workers"] <= per_pod * group["maxReplicas"], "more workers than the cluster may ever hold"


def sh_lines(text: str) -> list[str]:
    """The command lines of the sh blocks of a document, those that go on joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_every_command_of_the_guide_exists() -> None:
    from ray.scripts.scripts import cli

    coats = rays = 0
    for line in sh_lines((ROOT / "docs" / "cluster.md").read_text()):
        words = shlex.split(line, comments=True)
        at = words.index("coat") if "coat" in words else None
        if at == 0 or (at and words[at - 1] == "-m"):
            parse_coat(words[at + 1 :])
            coats += 1
        if words[:1] == ["ray"]:
            command, rest = cli, words[1:]
            while isinstance(command, click.Group):
                command, rest = command.commands[rest[0]], rest[1:]
            command.make_context("ray", rest)
            rays += 1
    assert coats >= 8
    assert rays >= 3


def test_files_that_the_guide_names_are_there() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    named = set(re.findall(r"deploy/[\w./-]*\w", text))
    assert {"deploy/slurm/extract.sbatch", "deploy/grafana-dashboard.json", "deploy/Dockerfile"} <= named
    assert [n for n in named if not (ROOT / n).exists()] == []


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    exported = (
        {f"ray_{n}_total" for n in COUNTERS} | {f"ray_{n}" for n in GAUGES} | {f"ray_{n}_bucket" for n in HISTOGRAMS}
    )
    assert dashboard["uid"]
    assert len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"])
    asked = set()
    for panel in dashboard["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            names = set(re.findall(r"ray_\w+", target["expr"]))
            assert names, target["expr"]
            assert names <= exported, target["expr"]
            asked |= names
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            tags = {tag for n in names if n.endswith("_total") for tag in COUNTERS[n[4:-6]][1]}
            assert labels <= {"expert", *tags}, target["legendFormat"]
    assert asked == exported, "each metric has its panel"


def test_the_sbatch_script() -> None:
    script = DEPLOY / "slurm" / "extract.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    directives = re.findall(r"^#SBATCH --([a-z-]+)", text, flags=re.MULTILINE)
    assert {"requeue", "signal", "open-mode", "time"} <= set(directives)
    (line,) = re.findall(r"^coat .*", text.replace("\\\n", " "), flags=re.MULTILINE)
    words = shlex.split(line.replace('"$workers"', "3").replace('"$threads"', "4").replace('"$@"', "").rstrip("& "))
    options = parse_coat([*words[1:], "--expert", "pitch"])
    assert (options["workers"], options["cpus_per_worker"]) == (3, 4)
