# shellcheck shell=bash
# Sourced by srup, test, check and gpu-check: finds or makes the environment that they run in.
#
# The environment is .venv in the repository root, made on first use with $PYTHON or, if that is not set, the
# first Python >= 3.11 that `find_python` finds. SRUP_VENV=PATH names another environment; missing packages are
# installed into it. No other environment is changed: not an active one ($VIRTUAL_ENV), and not a .venv that
# someone else made, which is one without $venv/.srup-stamp.
# The stamp says what is installed: a checksum of what decides it, then "base" or "dev".

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
program=$(basename "$0")

say() { printf '%s: %s\n' "$program" "$*" >&2; }
die() { say "$@"; exit 1; }

venv=$root/.venv
shown=.venv
if [ -n "${SRUP_VENV:-}" ]; then
    venv=$(readlink -f "$SRUP_VENV") || die "SRUP_VENV=$SRUP_VENV: no such folder"
    shown=$venv
fi
stamp=$venv/.srup-stamp
log=$venv/srup-install.log

# The root is part of the checksum: an editable install points to where the repository was.
wanted=$({ printf '%s\n' "$root"; cat "$root/setup.cfg" "$root/pyproject.toml"; } | cksum)

# is_installed base|dev: dev contains base.
is_installed() {
    [ -x "$venv/bin/python" ] && [ -x "$venv/bin/srup" ] && [ -f "$stamp" ] || return 1
    case $(cat "$stamp") in "$wanted dev" | "$wanted $1") return 0 ;; *) return 1 ;; esac
}

find_python() {
    local candidate version found=
    if [ -n "${SRUP_VENV:-}" ] && [ -x "$venv/bin/python" ]; then
        set -- "$venv/bin/python"
    elif [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3.13 python3.12 python3.11 python3 python
    fi
    for candidate; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in
            3.1[1-9] | 3.[2-9][0-9]) printf '%s\n' "$candidate"; return ;;
            *) found="$found, $candidate is $version" ;;
        esac
    done
    if [ -n "$found" ]; then die "need Python 3.11 or later, but ${found#, }"; fi
    die "need Python 3.11 or later, found none (tried $*)"
}

make_venv() {
    { rm -rf "$venv" && mkdir "$venv"; } 2>/dev/null || die "cannot write to $venv"
    # Stays until everything is installed, so that the run after an interrupted one starts over.
    echo unfinished >"$stamp"
    "$python" -m venv "$venv" >"$log" 2>&1 && return
    if grep -qE 'ensurepip|No module named' "$log"; then
        die "$python cannot make a virtual environment; on Debian and Ubuntu: sudo apt install python3-venv"
    fi
    die "$python cannot make a virtual environment: $(tail -n 1 "$log")"
}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" >"$log" 2>&1 && return
    die "pip failed (no network?): $(grep -o 'ERROR: .*' "$log" | tail -n 1); details in $log"
}

# is_foreign: someone else made the environment, and SRUP_VENV does not permit changes to it.
is_foreign() {
    [ -z "${SRUP_VENV:-}" ] && [ -e "$venv" ] && ! [ -f "$stamp" ] && ! rmdir "$venv" 2>/dev/null
}

# must_make: there is no environment yet, or one of ours that is unfinished or has lost its Python.
must_make() {
    ! [ -e "$venv" ] || [ "$(cat "$stamp" 2>/dev/null)" = unfinished ] \
        || { [ -z "${SRUP_VENV:-}" ] && ! "$venv/bin/python" -c '' 2>/dev/null; }
}

install_now() {
    local what="installing into" duration="about a minute"
    if [ "$1" = dev ]; then what="installing the development tools into" duration="some minutes"; fi
    if is_foreign; then
        die "$venv was not made by $program: set SRUP_VENV=$venv to install into it, or remove it"
    elif must_make; then
        say "first run, $what $shown ($duration)"
        make_venv
    elif ! [ -x "$venv/bin/python" ]; then
        die "SRUP_VENV=$SRUP_VENV is not a virtual environment"
    elif [ -f "$stamp" ]; then
        say "updating $shown"
    else
        say "$what $shown"
    fi
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >"$log" 2>&1 \
        || die "$venv has no pip; install it there"
    if [ "$1" = dev ]; then
        # The version that the project is developed with; an installed torch is kept.
        "$venv/bin/python" -c 'import torch' 2>/dev/null || pip_install torch==2.13.0
        # spandrel needs torchvision, whose newest release would bring another torch along.
        kept=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))')
        pip_install --editable "${root}[dev]" "torch==$kept"
    else
        pip_install --editable "$root"
    fi
    rm -f "$log"
    printf '%s %s\n' "$wanted" "$1" >"$stamp"
}

# ensure_installed base|dev: one process installs, others that start meanwhile wait for it.
ensure_installed() {
    if is_installed "$1"; then return; fi
    python=$(find_python)
    (
        # The lock belongs to the open file, not to this short process: it holds until the subshell ends.
        "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
        if ! is_installed "$1"; then install_now "$1"; fi
    ) 9<"$root/setup.cfg"
}
