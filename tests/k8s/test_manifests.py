"""The manifests, proved without a cluster, and the proof itself: seeded mistakes must be caught."""

import copy
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from k8s import check, job_rules, upkeep_rules
from k8s.cluster_rules import operator_rules
from k8s.kustomize import KustomizeError, apply_step, by_name, is_component, render
from k8s.pods import pods, quantity
from k8s.schemas import unchecked_kinds

pytestmark = pytest.mark.slow

HERE = Path(check.__file__).parent
FOLDERS = {str(folder.relative_to(HERE)): folder for folder in check.kustomizations()}
APPLIED = [name for name, folder in FOLDERS.items() if not is_component(folder)]
COMPONENTS = ("s3", "gpu", "gpu-endpoint", "kueue")  # in the order in which they are composed
CRDS = check.CRDS if check.CRDS.is_dir() else None

NO_CRDS = f"KubeRay's CRDs are not at {check.CRDS}"
TESTS = Path(__file__).parent
MISTAKES = yaml.safe_load((TESTS / "mistakes.yaml").read_text(encoding="utf-8"))
MISTAKES["manifests"] |= yaml.safe_load((TESTS / "mistakes_of_jobs.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict]]:
    return {name: check.objects_of(folder) for name, folder in FOLDERS.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_manifests_hold(name: str, rendered: dict[str, list[dict]]) -> None:
    assert list(check.problems(rendered[name], crds=CRDS)) == []


@pytest.mark.parametrize("chosen", itertools.combinations(COMPONENTS, 3), ids="+".join)
def test_components_compose(chosen: tuple[str, ...], rendered: dict[str, list[dict]]) -> None:
    objects = rendered["base"]
    for name in chosen:
        objects = render(HERE / "components" / name, onto=objects)
    assert list(check.problems(objects, crds=CRDS)) == []


@pytest.mark.skipif(CRDS is None, reason=NO_CRDS)
def test_kinds_without_a_schema_are_named(rendered: dict[str, list[dict]]) -> None:
    assert unchecked_kinds(rendered["base"], CRDS) == [
        "gateway.networking.k8s.io/v1 Gateway",
        "gateway.networking.k8s.io/v1 HTTPRoute",
        "monitoring.coreos.com/v1 PrometheusRule",
        "monitoring.coreos.com/v1 ServiceMonitor",
    ]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("name", APPLIED)
def test_kubectl_renders_the_same(name: str, rendered: dict[str, list[dict]]) -> None:
    said = subprocess.run(
        ["kubectl", "kustomize", str(FOLDERS[name])], capture_output=True, text=True, check=True
    )
    theirs = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(said.stdout)}
    ours = {(o["kind"], o["metadata"]["name"]): o for o in rendered[name]}
    assert ours == theirs


@pytest.mark.parametrize("name", MISTAKES["manifests"])
def test_a_seeded_mistake_is_caught(name: str, rendered: dict[str, list[dict]]) -> None:
    mistake = MISTAKES["manifests"][name]
    if mistake.get("by") == "kuberay" and CRDS is None:
        pytest.skip(NO_CRDS)
    kind, _, thing = mistake["of"].partition(" ")
    objects = copy.deepcopy(rendered[mistake.get("in", "base")])
    apply_step(by_name(objects, kind)[thing], mistake["step"])
    assert_caught(objects, mistake["caught"])


def assert_caught(objects: list[dict], sentence: str) -> None:
    found = list(check.problems(objects, crds=CRDS))
    assert any(re.search(sentence, problem) for problem in found), found or "nothing was found"


def test_a_package_that_the_check_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    assert check.main([str(HERE / "base")]) == 2
    assert "pip install -r requirements/dev.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "schedule", ["0 1 * * *", "*/5 0-6,22 1,15 jan-mar mon", "@daily", "0 0 ? * 0"]
)
def test_schedules_that_kubernetes_takes_pass(schedule: str) -> None:
    assert list(upkeep_rules.cron_problems(schedule)) == []


@pytest.mark.parametrize(
    "schedule",
    [
        "61 25 * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * fun",
        "5-1 * * * *",
        "*/0 * * * *",
        "",
        "@sometimes",
        "1- * * * *",
        "a * * * *",
    ],
)
def test_schedules_that_kubernetes_rejects_are_problems(schedule: str) -> None:
    assert list(upkeep_rules.cron_problems(schedule))


@pytest.mark.parametrize("name", MISTAKES["serve"])
def test_a_mistake_in_serves_configuration_is_caught(
    name: str, rendered: dict[str, list[dict]]
) -> None:
    mistake = MISTAKES["serve"][name]
    objects = copy.deepcopy(rendered[mistake.get("in", "base")])
    service = by_name(objects, "RayService")["raymtr"]
    config = service["spec"]["serveConfigV2"]
    assert mistake["from"] in config
    service["spec"]["serveConfigV2"] = config.replace(mistake["from"], mistake["to"], 1)
    assert_caught(objects, mistake["caught"])


# KubeRay's CEL rules, restated: what is set in the spec of RayJob embed, and whether it is refused.
CEL = [
    ({"managedBy": "somebody"}, True),
    ({"managedBy": "kueue.x-k8s.io/multikueue"}, False),
    ({"deletionStrategy": {"onSuccess": {"policy": "DeleteCluster"}}}, True),
    ({"deletionStrategy": {}}, True),
    (
        {
            "deletionStrategy": {
                "onSuccess": {"policy": "DeleteCluster"},
                "onFailure": {"policy": "DeleteCluster"},
            }
        },
        False,
    ),
    (
        {"deletionStrategy": {"onSuccess": {}, "onFailure": {}, "deletionRules": []}},
        True,
    ),
    ({"deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}}, True),
    (
        {
            "deletionStrategy": {
                "deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}]
            }
        },
        False,
    ),
    ({"shutdownAfterJobFinishes": False}, True),
]


@pytest.mark.parametrize(("change", "refused"), CEL)
def test_the_rules_of_the_api_server(
    change: dict, refused: bool, rendered: dict[str, list[dict]]
) -> None:
    jobs = copy.deepcopy([o for o in rendered["base"] if o["kind"] == "RayJob"])
    by_name(jobs, "RayJob")["embed"]["spec"].update(change)
    assert bool([*operator_rules(jobs), *job_rules.templates(jobs)]) is refused


def test_every_verb_of_the_road_has_a_job(rendered: dict[str, list[dict]]) -> None:
    for objects in rendered.values():
        jobs = by_name(objects, "RayJob")
        assert set(jobs) == {"scan", "finetune", "caption", "train", "embed", "generate", "index"}
        nightly = by_name(objects, "CronJob")["nightly"]
        pod = nightly["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert set(pod["containers"][0]["command"][2:]) < set(jobs)


def test_decoding_can_feed_the_gpu(rendered: dict[str, list[dict]]) -> None:
    """An encoder of 5,500 windows a second wants 42 cores: 22.7 ms of a core for 3 windows."""
    embed = [p for p in pods(rendered["overlays/gpu"]) if p.where.startswith("RayJob embed, group")]
    gpus = sum(p.limit("nvidia.com/gpu") * p.most for p in embed)
    cores = sum(p.limit("cpu") * p.most for p in embed)
    assert gpus == 1
    assert cores >= gpus * 5_500 * 22.7e-3 / 3


def test_what_is_left_out_is_missed(rendered: dict[str, list[dict]]) -> None:
    """Mistakes that take a whole object away."""
    for kind, name, sentence in [
        ("RayJob", "finetune", "RayJob finetune: there is none"),
        ("CronJob", "fetch", "nothing fetches models"),
        ("NetworkPolicy", "names", "names are not resolved"),
    ]:
        left = [o for o in rendered["base"] if (o["kind"], o["metadata"]["name"]) != (kind, name)]
        assert_caught(left, sentence)


def test_a_bucket_without_a_way_to_it(rendered: dict[str, list[dict]]) -> None:
    left = [o for o in rendered["overlays/s3"] if o["metadata"]["name"] != "store"]
    for where in ("0.0.0.0/0 at 443", "0.0.0.0/0 at 9000", "169.254.169.254 at 80"):
        assert_caught(left, f"RayJob scan, head: the bucket needs {where}")


def test_only_a_component_is_composed(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/kustomization.yaml").write_text("resources: []\n")
    (tmp_path / "kustomization.yaml").write_text("resources: []\ncomponents: [plain]\n")
    with pytest.raises(KustomizeError, match="plain is not a Component"):
        render(tmp_path)


def test_a_kustomization_that_says_more_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\ncommonLabels: {a: b}\n")
    with pytest.raises(KustomizeError, match="commonLabels"):
        render(tmp_path)


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("2", 2.0), ("3Gi", 3 * 2**30), ("10T", 1e13), (0, 0.0)]
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == number


def test_a_typo_in_a_quantity_is_an_error() -> None:
    with pytest.raises(ValueError, match="3GiB"):
        quantity("3GiB")
