"""The files for several machines in docs/cluster: they parse, and what they start does its part."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "cluster"
SLURM = (FOLDER / "slurm.sh").read_text(encoding="utf-8")
JOB = yaml.safe_load((FOLDER / "job.yaml").read_text(encoding="utf-8"))
IMAGES = ("Dockerfile", "Dockerfile.cuda")
PARTS = 2


def instructions(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, each on one line, without comments."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    whole = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in whole if line.strip()]


def values(name: str, instruction: str) -> list[str]:
    return [value for kind, value in instructions(name) if kind == instruction]


def health_check(name: str) -> list[str]:
    """Return the command of the health check."""
    (check,) = values(name, "HEALTHCHECK")
    return list(yaml.safe_load(check.partition("CMD ")[2]))  # a list in JSON


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a folder with pictures in `in`, and `srup` in `bin`."""
    for number in range(6):
        path = tmp_path / "in" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    program = tmp_path / "bin" / "srup"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sr.cli "$@"\n')
    program.chmod(0o755)
    return tmp_path


def environment(shared: Path, **variables: str) -> dict[str, str]:
    path = f"{shared / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | variables


def outputs(shared: Path) -> list[str]:
    return sorted(path.name for path in (shared / "out").rglob("*.png"))


ALL = [f"{number}_x2.png" for number in range(6)]


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm is for Linux")
def test_tasks_of_the_slurm_array_share_the_pictures(shared):
    (last,) = re.findall(r"^#SBATCH --array=1-(\d+)$", SLURM, flags=re.MULTILINE)
    assert f"\nshards={last}\n" in SLURM
    script = shared / "slurm.sh"
    script.write_text(SLURM.replace(f"\nshards={last}\n", f"\nshards={PARTS}\n"))
    made = []
    for task in range(1, PARTS + 1):
        command = ["bash", script, shared / "in", shared / "out", "--backend", "onnx"]
        subprocess.run(command, check=True, env=environment(shared, SLURM_ARRAY_TASK_ID=str(task)))
        made.append(len(outputs(shared)))
    assert outputs(shared) == ALL
    assert 0 < made[0] < len(ALL), "each task has its part"


@pytest.mark.skipif(sys.platform == "win32", reason="sbatch is for Linux")
def test_a_slurm_task_without_folders_says_what_is_missing(shared):
    answer = subprocess.run(
        ["bash", FOLDER / "slurm.sh"],
        env=environment(shared, SLURM_ARRAY_TASK_ID="1"),
        capture_output=True,
        text=True,
    )
    assert answer.returncode != 0
    assert "folder" in answer.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="containers run Linux")
def test_pods_of_the_kubernetes_job_share_the_pictures(shared):
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "SHARDS", "value": str(JOB["spec"]["completions"])}]
    (script,) = container["args"]
    command = [*container["command"], script.replace("/data", str(shared))]
    for index in range(PARTS):
        variables = {"JOB_COMPLETION_INDEX": str(index), "SHARDS": str(PARTS)}
        subprocess.run(command, check=True, env=environment(shared, **variables))
    assert outputs(shared) == ALL


def test_the_kubernetes_job_is_indexed_and_has_no_privileges():
    spec = JOB["spec"]
    assert (JOB["apiVersion"], JOB["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    (rule, _) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2], "wrong usage"


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_pinned_unprivileged_and_checked(name):
    (base,) = values(name, "FROM")
    assert re.search(r":[\w.-]*\d+\.\d+\.\d+", base), "a full version, never latest"
    user = values(name, "USER")[-1]
    assert re.fullmatch(r"\d+:\d+", user)
    assert not user.startswith("0")
    assert str(JOB["spec"]["template"]["spec"]["securityContext"]["runAsUser"]) == user.partition(":")[0]
    assert values(name, "ENTRYPOINT") == ['["srup"]']
    program, flag, code = health_check(name)
    assert (program, flag) == ("python", "-c")
    compile(code, name, "exec")
    for copied in values(name, "COPY"):
        assert (ROOT / copied.split()[0]).exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the versions are those for Linux")
def test_the_image_installs_and_is_healthy(tmp_path, package_index, source_tree, bare_env):
    """The steps of the image for CPUs, in a virtual environment in place of a container."""
    (install,) = [value for value in values("Dockerfile", "RUN") if "pip install" in value]
    install = install.partition(" && rm")[0]
    install = install.replace("/tmp/srup", str(source_tree)).replace(
        "/tmp/constraints.txt", str(FOLDER / "constraints.txt")
    )
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = bare_env | {"PATH": f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(shlex.split(install), check=True, env=programs, cwd=tmp_path, stdout=subprocess.DEVNULL)
    listing = subprocess.run(
        ["pip", "freeze", "--exclude", "srup"], check=True, env=programs, capture_output=True, text=True
    )
    pinned = (FOLDER / "constraints.txt").read_text(encoding="utf-8").split()
    installed = {line.lower().replace("_", "-") for line in listing.stdout.split()}
    assert installed <= set(pinned), "each version is pinned"
    subprocess.run(health_check("Dockerfile"), check=True, env=programs, cwd=tmp_path)
    subprocess.run(["srup", "--version"], check=True, env=programs, cwd=tmp_path)


def ray_commands(config: dict) -> list[list[str]]:
    """Return the arguments of each `ray start`, of the head node first."""
    lines = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    return [line.partition(" start ")[2].split() for line in lines if " start " in line]


def test_the_ray_cluster_file_is_valid_and_asks_for_a_token():
    """Against Ray's own schema, its checks, and its command line."""
    ray = pytest.importorskip("ray")
    jsonschema = pytest.importorskip("jsonschema")
    from ray.autoscaler._private.util import prepare_config, validate_config
    from ray.scripts.scripts import start

    text = (FOLDER / "ray.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text(encoding="utf-8")))
    prepared = prepare_config(config)
    validate_config(prepared)
    (nodes,) = prepared["available_node_types"].values()
    assert nodes["min_workers"] == len(config["provider"]["worker_ips"]), "all nodes are started"
    starts = [start.make_context("start", arguments).params for arguments in ray_commands(config)]
    assert [params["head"] for params in starts] == [True, False]
    assert starts[1]["address"] == f"$RAY_HEAD_IP:{starts[0]['port']}"
    assert all("RAY_AUTH_MODE=token" in line for line in text.splitlines() if " start " in line)
    assert "~/.ray/auth_token" in config["file_mounts"]
    (command,) = re.findall(r"ray exec ray.yaml '(.*)'", text)
    assert command.startswith("RAY_AUTH_MODE=token ")
    assert f"ray[default]=={ray.__version__}" in text


@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
def test_what_the_ray_cluster_file_runs_upscales(shared):
    """Its command, but for the cluster."""
    text = (FOLDER / "ray.yaml").read_text(encoding="utf-8")
    (command,) = re.findall(r"ray exec ray.yaml 'RAY_AUTH_MODE=token (.*) --ray auto'", text)
    words = shlex.split(command.replace("~/srup/bin/srup", "srup").replace("/shared", str(shared)))
    subprocess.run([*words, "--backend", "onnx"], check=True, env=environment(shared))
    assert outputs(shared) == ALL
