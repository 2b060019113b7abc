"""Failures around pictures, through the real command: disks, names, permissions, odd files."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from sr.files import TEMPORARY_PREFIX
from sr.image.content import UNREADABLE
from sr.jobs.ledger import NAME, is_record
from train.prepare.layout import UNLISTED

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
COMMAND = [sys.executable, "-W", "error", "-m", "sr.cli", "upscale"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"}

_POWERS = "-dac_override,-dac_read_search"  # of root, to whom permissions are nothing
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
AS_ANYBODY = ["setpriv", f"--bounding-set={_POWERS}", f"--inh-caps={_POWERS}"] if IS_ROOT else []

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def upscale(
    *arguments: object, before: list[str] | None = None, **options
) -> subprocess.CompletedProcess[str]:
    """Run the command; check that it ends and prints no traceback."""
    result = subprocess.run(
        [*(before or []), *COMMAND, *map(os.fspath, arguments)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        timeout=120,
        **{"stdout": subprocess.PIPE} | options,
    )
    assert "Traceback" not in result.stderr
    assert result.returncode in (0, 1)
    return result


def error_lines(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


def temporaries(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(f"{TEMPORARY_PREFIX}*") if not is_record(p.name)]


def whole(path: Path) -> bool:
    with Image.open(path) as picture:
        picture.load()
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three small photographs, of which each output takes about 25 KB."""
    folder = tmp_path / "in"
    folder.mkdir()
    with Image.open(EXAMPLES / "kitten.png") as photograph:
        for number in range(3):
            photograph.crop((100 + 20 * number, 100, 164 + 20 * number, 160)).save(folder / f"{number}.png")
    return folder


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory, or skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "srup-test", folder], capture_output=True)
    if made.returncode != 0:
        pytest.skip("may not mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
@linux
def test_a_full_disk_fails_only_pictures_that_do_not_fit_and_the_run_can_be_repeated(folder, tmp_path):
    with mounted(tmp_path / "out", "size=40k") as out:
        full = upscale(folder, "-o", out)
        assert full.returncode == 1
        assert error_lines(full)
        for line in error_lines(full):
            assert "No space left on device" in line
            assert "free some space" in line
        assert not temporaries(out)
        kept = sorted(out.glob("*.png"))
        assert len(kept) + len(error_lines(full)) == 3
        assert all(map(whole, kept))
        subprocess.run(["mount", "-o", "remount,size=1m", out], check=True)
        assert upscale(folder, "-o", out, "--skip-existing").returncode == 0
        assert len([path for path in out.glob("*.png") if whole(path)]) == 3


def test_an_unwritable_ledger_fails_no_picture(folder, tmp_path):
    out = tmp_path / "out"
    (out / NAME).mkdir(parents=True)
    result = upscale(folder, "-o", out)
    assert result.returncode == 0
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(f"Warning: {out}: ")
    assert "--skip-existing" in warning
    assert len(list(out.glob("*.png"))) == 3


@pytest.mark.slow
@linux
def test_a_read_only_output_folder_is_refused_before_the_work(folder, tmp_path):
    with mounted(tmp_path / "out", "ro") as out:
        result = upscale(folder, "-o", out)
        assert result.returncode == 1
        assert len(error_lines(result)) == 3
        assert all(str(out) in line for line in error_lines(result))
        result = upscale(folder, "-o", out / "new" / "folder")
        assert len(error_lines(result)) == 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions the Unix way")
def test_missing_permissions_are_reported(folder, tmp_path):
    """A picture and a folder that may not be read, and an output folder that may not be written."""
    if IS_ROOT and not shutil.which("setpriv"):
        pytest.skip("permissions do not bind this user")
    (folder / "1.png").chmod(0)
    closed, out = folder / "closed", tmp_path / "out"
    closed.mkdir(mode=0)
    result = upscale(folder, "-o", out, before=AS_ANYBODY)
    closed.chmod(0o755)
    assert (result.returncode, len(list(out.glob("*.png")))) == (1, 2)
    warning, error, *_ = result.stderr.splitlines()
    assert warning.startswith(f"Warning: {closed}: cannot be listed (Permission denied)")
    assert error == f"Error: {folder}/1.png: cannot be read (Permission denied); check its permissions"
    named = upscale(folder / "1.png", folder / "2.png", "-o", out, "--overwrite", before=AS_ANYBODY)
    assert (named.returncode, len(error_lines(named))) == (1, 1), "one that may not be read stops no other"
    assert "2_x2.png" in named.stdout
    out.chmod(0o555)
    result = upscale(folder / "0.png", "-o", out / "again.png", before=AS_ANYBODY)
    assert [line for line in error_lines(result) if f"the folder {out} cannot be written" in line]
    assert not (out / "again.png").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions the Unix way")
def test_what_may_not_be_read_is_counted_for_training_too(folder):
    if IS_ROOT and not shutil.which("setpriv"):
        pytest.skip("permissions do not bind this user")
    shutil.copy(folder / "1.png", folder / "no_suffix")
    (folder / "no_suffix").chmod(0)
    (folder / "closed").mkdir(mode=0)
    program = (
        "import sys; from pathlib import Path; from train.prepare.layout import find_sources;"
        "found = find_sources(Path(sys.argv[1])); print(len(found.pictures), dict(found.left_out))"
    )
    command = [*AS_ANYBODY, sys.executable, "-c", program, folder]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    (folder / "closed").chmod(0o755)
    assert result.stdout.strip() == f"3 { ({UNREADABLE: 1, UNLISTED: 1}) }", result.stderr


@pytest.mark.slow
@linux
def test_results_that_cannot_be_printed(folder):
    for option in ((), ("--json",)):
        with Path("/dev/full").open("w") as full:
            result = upscale(folder, "--overwrite", *option, stdout=full)
        assert result.returncode == 1
        (line,) = error_lines(result)
        assert "standard output" in line
    with contextlib.suppress(BrokenPipeError):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as gone:
            assert upscale(folder, "--overwrite", stdout=gone).returncode == 1
    assert not temporaries(folder.parent)


@pytest.mark.slow
@linux
def test_files_that_are_not_pictures_are_named_and_the_others_upscaled(folder, tmp_path):
    """A pipe, a loop of links, a broken link, an unreadable file, an empty file, a folder named x.png."""
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "broken.png").symlink_to(tmp_path / "absent.png")
    (folder / "unreadable.png").symlink_to("/proc/self/mem")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "round").symlink_to(folder)
    (folder / "folder.png" / "inside.png").write_bytes((folder / "0.png").read_bytes())
    result = upscale(folder)
    assert result.returncode == 1
    bad = ("broken", "device", "empty", "loop", "pipe", "unreadable")
    assert [line.split(": ")[1] for line in error_lines(result)] == [f"{folder}/{name}.png" for name in bad]
    out = folder.with_name("in_x2")
    outputs = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png") if path.is_file())
    assert outputs == ["0_x2.png", "1_x2.png", "2_x2.png", "folder.png/inside_x2.png"]
    for name in ("pipe", "loop"):  # alone too
        alone = upscale(folder / f"{name}.png", "-o", tmp_path / "alone.png")
        assert (alone.returncode, len(error_lines(alone))) == (1, 1)
        assert alone.stderr.startswith(f"Error: {folder}/{name}.png: ")


@pytest.mark.slow
def test_names_of_all_kinds(folder, tmp_path):
    content = (folder / "0.png").read_bytes()
    longest = "ü" * 125 + "x.png"  # 255 bytes
    names = [
        "a b.png",
        "new\nline.png",
        "emoji 🐈.png",
        " .png",
        "-o.png",
        "%s{}[*]?.png",
        "'\"$(x).png",
        longest,
    ]
    for name in names:
        (folder / name).write_bytes(content)
    result = upscale(folder, "--suffix", "")
    assert result.returncode == 1, "without a suffix the outputs need another folder"
    result = upscale(folder, "-o", tmp_path / "out", "--suffix", "")
    assert (result.returncode, result.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {*names, "0.png", "1.png", "2.png"}
    assert len(result.stdout.splitlines()) == 3 + len(names) + 1, "one line each"
    with_suffix = upscale(folder)
    (line,) = error_lines(with_suffix)
    assert "File name too long" in line
    assert "--suffix" in line
    *printed, _ = upscale(folder, "--json", "--overwrite", "--exclude", "ü*").stdout.splitlines()
    assert {Path(json.loads(line)["source"]).name for line in printed} == {
        *names[:-1],
        "0.png",
        "1.png",
        "2.png",
    }


@pytest.mark.slow
@linux
def test_names_that_are_not_utf_8(folder):
    strange, damaged = (folder / os.fsdecode(name) for name in (b"caf\xe9.png", b"damaged \xe9.png"))
    strange.write_bytes((folder / "0.png").read_bytes())
    damaged.write_bytes(b"damaged")
    for options in ((), ("--json", "--overwrite"), ("--skip-existing",)):
        result = upscale(folder, *options)
        assert result.returncode == 1, options
    assert "4 pictures skipped" in result.stdout
    assert whole(folder.with_name("in_x2") / os.fsdecode(b"caf\xe9_x2.png"))
    planned = upscale(folder, "--dry-run", "--overwrite")
    assert len(planned.stdout.splitlines()) == 5, "four pictures and a summary"
    assert planned.stderr.count("Error: ") == 1


def many(folder: Path, number: int) -> None:
    content = (folder / "0.png").read_bytes()
    for index in range(number):
        (folder / f"many{index:03}.png").write_bytes(content)


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(os.fspath, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_inputs_that_vanish_meanwhile(folder):
    many(folder, 40)
    with started(folder) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first is done
        gone = sorted(folder.glob("*.png"))[30:]
        for path in gone:
            path.unlink()
        _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    assert process.returncode == 1
    failed = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert 0 < len(failed) <= len(gone)
    assert all("No such file" in line for line in failed)
    assert len(list(folder.with_name("in_x2").glob("*.png"))) == 43 - len(failed)


@pytest.mark.slow
@linux
def test_an_output_folder_that_is_deleted_meanwhile(folder):
    many(folder, 60)
    out = folder.with_name("in_x2")
    with started(folder) as process:
        assert process.stdout is not None
        process.stdout.readline()
        moved = out.rename(out.with_name("moved"))  # at once, unlike deleting
        _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    assert process.returncode in (0, 1)
    kept = [
        path for path in (*out.glob("*.png"), *moved.glob("*.png")) if path.name not in temporaries(moved)
    ]
    failed = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert len(kept) + len(failed) >= 63
    assert all(map(whole, kept))
    assert not temporaries(out)
