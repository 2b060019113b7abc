"""bin/srup from a fresh clone: it installs itself once, passes arguments on, and reports what is missing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import sr

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bin/srup is a bash script")

ROOT = Path(__file__).resolve().parent.parent

# What bin/srup may call; none of them is a Python.
TOOLS = (
    "bash",
    "env",
    "basename",
    "cat",
    "cksum",
    "dirname",
    "grep",
    "mkdir",
    "readlink",
    "rm",
    "rmdir",
    "tail",
)

# Debian's python3 without python3-venv, as it answers `-m venv`.
NO_VENV = """
The virtual environment was not created successfully because ensurepip is not
available.  On Debian/Ubuntu systems, you need to install the python3-venv
package using the following command.
"""


def run(program: Path, *arguments: str, env: dict[str, str], **options) -> subprocess.CompletedProcess[str]:
    command = [str(program), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", **options)


def fake_python(path: Path, *, version: str) -> Path:
    """Write a program that answers its version and cannot make an environment."""
    path.write_text(
        f"""#!/bin/sh
case "$*" in
    *version_info*) echo {version} ;;
    *"-m venv"*) echo '{NO_VENV}'; exit 1 ;;
esac
"""
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def tools_only(tmp_path: Path, bare_env: dict[str, str]) -> dict[str, str]:
    """Return an environment whose PATH is one folder of tools, with no Python in it."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool}"))
    return bare_env | {"PATH": str(folder)}


@pytest.fixture
def clone(source_tree: Path, tmp_path: Path) -> Path:
    """Return a clone in which nothing is installed."""
    return shutil.copytree(source_tree, tmp_path / "clone", ignore=shutil.ignore_patterns(".venv"))


@pytest.fixture(scope="module")
def installed_tree(source_tree: Path, package_index: None, bare_env: dict[str, str]) -> Path:
    """Return a clone that two processes installed at once after a first one was killed half-way."""
    command, venv = [str(source_tree / "bin/srup"), "--version"], source_tree / ".venv"
    env = bare_env | {"PYTHON": sys.executable}
    killed = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (venv / "bin/pip").exists():
        assert killed.poll() is None
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    both = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate() for process in both]
    assert all(sr.__version__ in out for out, _ in answers)
    assert sorted(err for _, err in answers) == [
        "",
        "srup: first run, installing into .venv (about a minute)\n",
    ]
    return source_tree


@pytest.mark.parametrize("how", ["PYTHON", "PATH"])
def test_too_old_python_is_named(clone: Path, tools_only: dict[str, str], how: str) -> None:
    old = fake_python(Path(tools_only["PATH"]) / "python3", version="3.8")
    env = tools_only | ({"PYTHON": str(old)} if how == "PYTHON" else {})
    answer = run(clone / "bin/srup", "--version", env=env)
    named = old if how == "PYTHON" else "python3"
    assert answer.returncode == 1
    assert answer.stderr == f"srup: need Python 3.11 or later, but {named} is 3.8\n"


def test_a_missing_python_is_reported(clone: Path, tools_only: dict[str, str]) -> None:
    answer = run(clone / "bin/srup", "--version", env=tools_only)
    assert answer.returncode == 1
    assert answer.stderr.startswith("srup: need Python 3.11 or later, found none")


def test_missing_venv_names_the_debian_package(clone: Path, tools_only: dict[str, str]) -> None:
    fake_python(Path(tools_only["PATH"]) / "python3.12", version="3.12")
    answer = run(clone / "bin/srup", "--version", env=tools_only)
    assert answer.returncode == 1
    last_line = answer.stderr.splitlines()[-1]
    assert last_line.startswith("srup: python3.12 cannot make a virtual environment")
    assert "python3-venv" in last_line


@pytest.mark.slow
def test_a_missing_network_is_reported_and_the_next_run_starts_over(
    clone: Path, bare_env: dict[str, str]
) -> None:
    offline = {name: value for name, value in bare_env.items() if not name.startswith("PIP_")}
    offline |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    for _ in range(2):
        answer = run(clone / "bin/srup", "--version", env=offline | {"PYTHON": sys.executable})
        assert answer.returncode == 1
        first, last = answer.stderr.splitlines()
        assert first == "srup: first run, installing into .venv (about a minute)"
        assert last.startswith("srup: pip failed (no network?): ERROR: ")


@pytest.fixture
def bin_alone(tmp_path: Path) -> Path:
    """Return a copy of bin/ beside an environment, `venv`, of which only the Python is missing."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    (tmp_path / "bin/_env.sh").write_text(
        f"root='{tmp_path}' venv='{tmp_path}/venv'; ensure_installed() {{ :; }}\n"
    )
    return tmp_path / "bin"


@pytest.mark.parametrize(("given", "passed_on"), [(["--quick", "-x"], "-m not slow -x"), (["-x"], "-x")])
def test_tests_run_on_every_core_and_quick_ones_leave_out_the_slow(
    bin_alone: Path, given: list[str], passed_on: str
) -> None:
    python = bin_alone.parent / "venv/bin/python"
    python.write_text('#!/bin/sh\nif [ "$1" = -c ]; then echo 3; else echo "$*"; fi\n')
    python.chmod(0o755)
    answer = run(bin_alone / "test", *given, env=dict(os.environ))
    assert answer.stdout.splitlines() == [
        "-m ruff format --check .",
        "-m ruff check .",
        "-m mypy",
        f"-m pytest --numprocesses 3 --dist loadfile --max-worker-restart 0 {passed_on}",
    ]


UNHEALTHY = {
    "dies": "import os, signal\n\ndef test_dies():\n    os.kill(os.getpid(), signal.SIGTERM)\n",
    "waits": "import threading\n\ndef test_waits():\n    threading.Event().wait()\n",
    "computes": "import hashlib\n\ndef test_computes():\n    hashlib.pbkdf2_hmac('md5', b'', b'', 2**30)\n",
}
# Its process waits before the next test begins, as one does whose connection is lost.
STALLING = """
import threading
import pytest

class Stalls:
    @pytest.hookimpl(tryfirst=True, wrapper=True)
    def pytest_runtest_protocol(self):
        threading.Event().wait()
        return (yield)

def test_stalls(request):
    request.config.pluginmanager.register(Stalls())

def test_next():
    pass
"""


def run_tests(bin_alone: Path, name: str, content: str) -> subprocess.CompletedProcess[str]:
    """Run `bin/test` on a file of tests and another one, with short limits of time."""
    root, python = bin_alone.parent, bin_alone.parent / "venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (bin_alone / "check").write_text("#!/bin/sh\n")
    (root / "tests").mkdir()
    for file in ("setup.cfg", "tests/conftest.py", "tests/standstill.py"):
        shutil.copy(ROOT / file, root / file)
    (root / f"tests/test_{name}.py").write_text(content)
    (root / "tests/test_other.py").write_text("def test_other():\n    pass\n")
    soon = ("-o", "timeout=2", "-o", "faulthandler_timeout=4")
    return run(bin_alone / "test", *soon, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
@pytest.mark.parametrize("what", UNHEALTHY)
def test_a_test_that_dies_or_hangs_is_named_and_ends_the_run(bin_alone: Path, what: str) -> None:
    answer = run_tests(bin_alone, what, UNHEALTHY[what])
    assert answer.returncode == 1
    assert f"FAILED tests/test_{what}.py::test_{what}" in answer.stdout


@pytest.mark.slow
def test_a_process_that_never_comes_to_its_next_test_ends_the_run(bin_alone: Path) -> None:
    answer = run_tests(bin_alone, "stalls", STALLING)
    assert answer.returncode == 1
    assert "FAILED: no test began or ended" in answer.stderr


@pytest.fixture
def own_venv(tmp_path: Path) -> Path:
    """Return an environment that bin/srup did not make."""
    venv = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    return venv


def names_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_an_active_environment_is_not_changed(
    clone: Path, own_venv: Path, tools_only: dict[str, str]
) -> None:
    before = names_below(own_venv)
    fake_python(Path(tools_only["PATH"]) / "python3.12", version="3.12")
    answer = run(clone / "bin/srup", "--version", env=tools_only | {"VIRTUAL_ENV": str(own_venv)})
    assert ".venv" in answer.stderr.splitlines()[0]  # what it installs into
    assert names_below(own_venv) == before


@pytest.mark.parametrize("script", ["srup", "test", "check", "gpu-check"])
def test_a_venv_that_someone_else_made_is_refused(
    clone: Path, own_venv: Path, bare_env: dict[str, str], script: str
) -> None:
    own_venv.rename(clone / ".venv")
    before = names_below(clone)
    answer = run(clone / "bin" / script, env=bare_env | {"PYTHON": sys.executable})
    assert answer.returncode == 1
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith(f"{script}: ")
    assert f"SRUP_VENV={clone / '.venv'}" in line
    assert names_below(clone) == before


def test_srup_venv_must_be_an_environment(clone: Path, tmp_path: Path, bare_env: dict[str, str]) -> None:
    env = bare_env | {"SRUP_VENV": str(tmp_path), "PYTHON": sys.executable}
    answer = run(clone / "bin/srup", "--version", env=env)
    assert answer.returncode == 1
    assert f"SRUP_VENV={tmp_path}" in answer.stderr
    assert not (tmp_path / "bin").exists()


@pytest.mark.slow
def test_srup_venv_names_the_environment_to_install_into(
    clone: Path, package_index: None, tmp_path: Path, bare_env: dict[str, str]
) -> None:
    chosen = tmp_path / "chosen"
    subprocess.run([sys.executable, "-m", "venv", chosen], check=True)
    answers = [
        run(clone / "bin/srup", "--version", env=bare_env | {"SRUP_VENV": str(chosen)}) for _ in range(2)
    ]
    assert all(sr.__version__ in answer.stdout for answer in answers)
    assert [answer.stderr for answer in answers] == [f"srup: installing into {chosen}\n", ""]
    assert not (clone / ".venv").exists()


@pytest.mark.slow
def test_arguments_pass_unchanged_through_a_symlink_from_another_folder(
    installed_tree: Path, tmp_path: Path, bare_env: dict[str, str]
) -> None:
    (tmp_path / "srup").symlink_to(installed_tree / "bin/srup")
    Image.new("RGB", (24, 16), "teal").save(tmp_path / "my picture 猫 $HOME *.png")
    arguments = ("upscale", "my picture 猫 $HOME *.png", "--scale", "2", "-o", "grö ßer.png")
    answer = run(tmp_path / "srup", *arguments, env=bare_env, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    with Image.open(tmp_path / "grö ßer.png") as out:
        assert out.size == (48, 32)


@pytest.mark.slow
def test_changed_requirements_are_installed(installed_tree: Path, bare_env: dict[str, str]) -> None:
    with (installed_tree / "setup.cfg").open("a", encoding="utf-8") as settings:
        settings.write("# changed\n")
    answers = [run(installed_tree / "bin/srup", "--version", env=bare_env) for _ in range(2)]
    assert [answer.stderr for answer in answers] == ["srup: updating .venv\n", ""]
