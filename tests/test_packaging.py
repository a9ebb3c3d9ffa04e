"""What is shipped: wheel, constraints, manifests and scripts, held against the code they name."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import constraints
from ray_rec.config import load_config

ROOT = Path(__file__).resolve().parent.parent
KUBERAY = ROOT / "deploy" / "kuberay"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"ray_rec", "jobs", "serve", "deploy", "benchmarks", "tests"}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def documents(path: Path) -> list[Any]:
    return [part for part in yaml.safe_load_all(path.read_text()) if part is not None]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


# constraints


def test_constraints_name_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert list(pinned()) == sorted(pinned())
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.!+]+", line), line


def test_constraints_cover_all_that_is_declared_within_its_range() -> None:
    versions = pinned()
    for requirement in constraints.declared():
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} has {version}"


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms need fewer packages")
def test_constraints_cover_all_that_is_reached() -> None:
    assert set(constraints.reachable(constraints.declared())) <= set(pinned())


# imports and what pyproject.toml declares

ELSEWHERE = {ROOT / "benchmarks" / "_rectools.py"}
"""Run in an environment of their own, which brings what they import."""


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


@pytest.mark.parametrize(
    ("folders", "with_dev"),
    [(("ray_rec", "jobs", "serve"), False), (("benchmarks", "deploy", "tests"), True)],
)
def test_every_package_that_is_imported_is_declared(
    folders: tuple[str, ...], with_dev: bool
) -> None:
    extras = PROJECT["optional-dependencies"]
    allowed = names(PROJECT["dependencies"])
    for extra, lines in extras.items():
        allowed |= names(lines) if with_dev or extra != "dev" else set()
    distributions = packages_distributions()
    paths = {path for folder in folders for path in (ROOT / folder).rglob("*.py")}
    for path in paths - ELSEWHERE:
        for module in set(imported(path)) - OURS - sys.stdlib_module_names - {"conftest"}:
            owners = {canonicalize_name(owner) for owner in distributions.get(module, ())}
            assert owners & allowed, f"{path.relative_to(ROOT)} imports {module}, not declared"


# the wheel


def test_the_wheel_holds_the_applications_and_no_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in tracked():
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("ray_rec-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {"ray_rec/py.typed", "serve/app.py", "jobs/stream.py"}
    expected |= {f"serve/{path.name}" for path in (ROOT / "serve").iterdir() if path.is_file()}
    assert expected <= held
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert not [name for name in held if name.startswith(("tests/", "benchmarks/", "deploy/"))]


# manifests


def pod_specs(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "containers" in tree:
            yield tree
        for value in tree.values():
            yield from pod_specs(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from pod_specs(value)


def ray_resources() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for path in sorted(KUBERAY.glob("*.yaml")):
        for document in documents(path):
            for key in ("rayClusterSpec", "rayClusterConfig"):
                if key in document.get("spec", {}):
                    yield document, document["spec"][key]


def test_manifests_run_the_versions_and_pods_of_this_release() -> None:
    kinds = set()
    for document, cluster in ray_resources():
        kinds.add(document["kind"])
        assert cluster["rayVersion"] == pinned()["ray"]
        assert cluster["authOptions"] == {"mode": "token"}
        for pod in pod_specs(cluster):
            assert pod["securityContext"]["runAsNonRoot"] is True
            volumes = {volume["name"] for volume in pod["volumes"]}
            for container in pod["containers"]:
                assert container["image"] == f"ray-rec:{PROJECT['version']}"
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
                (file,) = (e["value"] for e in container["env"] if e["name"] == "RAY_REC_CONFIG")
                assert Path(file).name == "ray-rec.toml"
    assert kinds == {"RayJob", "RayService"}


@pytest.mark.parametrize("folder", [KUBERAY, KUBERAY / "gpu"], ids=["cpu", "gpu"])
def test_the_cluster_configuration_is_one_that_is_accepted(folder: Path) -> None:
    config = load_config(folder / "ray-rec.toml", environ={})
    assert config.training.use_gpu is (folder.name == "gpu")
    assert config.log.startswith("kafka://")


def test_kustomizations_name_files_and_places_that_exist() -> None:
    resources = {document["kind"]: document for document, _ in ray_resources()}
    for path in KUBERAY.rglob("kustomization.yaml"):
        (kustomization,) = documents(path)
        assert all((path.parent / name).exists() for name in kustomization["resources"])
        for generator in kustomization["configMapGenerator"]:
            assert all((path.parent / name).is_file() for name in generator["files"])
        for patch in kustomization.get("patches", ()):
            target = resources[patch["target"]["kind"]]
            assert target["metadata"]["name"] == patch["target"]["name"]
            for change in documents(path.parent / patch["path"])[0]:
                parent = at(target, change["path"].rpartition("/")[0])
                assert (change["op"] == "replace") == (change["path"].rpartition("/")[2] in parent)


def at(tree: Any, pointer: str) -> Any:
    """Follow a JSON pointer."""
    for part in pointer.strip("/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


def test_job_entrypoints_exist_with_their_flags() -> None:
    entrypoints = [
        document["spec"]["entrypoint"]
        for document, _ in ray_resources()
        if document["kind"] == "RayJob"
    ]
    assert entrypoints
    for entrypoint in entrypoints:
        python, minus_m, module, *arguments = entrypoint.split()
        assert (python, minus_m) == ("python", "-m")
        shown = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for flag in (argument for argument in arguments if argument.startswith("--")):
            assert re.search(rf"(?<!\S){flag}(?![\w-])", shown), f"{module} has no {flag}"


# Serve


def serve_configs() -> dict[str, dict[str, Any]]:
    (local,) = documents(ROOT / "deploy" / "serve-config.yaml")
    (service,) = documents(KUBERAY / "rayservice.yaml")
    (patch,) = documents(KUBERAY / "gpu" / "rayservice.yaml")
    (gpu,) = (yaml.safe_load(p["value"]) for p in patch if p["path"] == "/spec/serveConfigV2")
    return {"local": local, "kuberay": yaml.safe_load(service["spec"]["serveConfigV2"]), "gpu": gpu}


@pytest.mark.parametrize("where", ["local", "kuberay", "gpu"])
def test_serve_configurations_fit_the_application(where: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.app import AppArgs

    schema = ServeDeploySchema.model_validate(serve_configs()[where])
    (application,) = schema.applications
    module, _, function = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    AppArgs.parse(application.args)
    for deployment in application.deployments:
        assert hasattr(importlib.import_module(module), deployment.name)


# the image


def test_the_image_copies_files_that_exist_and_are_sent_to_the_builder() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert "constraints.txt" in copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignore
    (extras,) = re.findall(r'"\.\[([a-z,]+)\]"', dockerfile)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert re.search(r"^USER (?!root)\w+", dockerfile, re.MULTILINE)


# scripts


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with a shell and nothing that the tests of the project need."""
    for name in ("bash", "sed", "head", "printf"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    return tmp_path


def test_missing_tools_are_asked_for_by_name(bare_path: Path) -> None:
    asked = subprocess.run(
        ["bash", ROOT / ".ci" / "tools", "require"],
        env={"PATH": str(bare_path)},
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 1
    assert "Java 17 or newer, Maven, Chromium" in asked.stderr
    assert "sudo apt-get install -y openjdk-17-jre-headless maven chromium\n" in asked.stderr


def test_a_missing_python_is_asked_for_by_name(bare_path: Path) -> None:
    asked = subprocess.run(
        ["bash", ROOT / ".ci" / "python"],
        env={"PATH": str(bare_path)},
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 1
    assert "Python 3.11 or newer" in asked.stderr


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    assert "make test" in (ROOT / "README.md").read_text()


def test_no_tracked_file_names_a_place_of_this_machine() -> None:
    common = {Path("/"), Path(tempfile.gettempdir())}
    places = [f"{place}/" for place in {ROOT, ROOT.parent, Path.home()} - common]
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "ignore")
        assert not [place for place in places if place in text], path.relative_to(ROOT)
