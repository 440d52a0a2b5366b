# Sourced by the scripts beside it: check the machine, make .venv, install llamapatch into it.
# usage: . ci/setup.sh; need_tools; make_venv EXTRAS      (EXTRAS like "" or "[test]")

complain() {
    echo "error: $1" >&2
    exit 1
}

need_tools() {
    command -v git > /dev/null || complain "git is missing. Install it: apt install git (Debian, Ubuntu), dnf install git (Fedora)."
    command -v g++ > /dev/null || command -v clang++ > /dev/null || command -v c++ > /dev/null ||
        complain "no C++ compiler. Install one: apt install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora)."
    PYTHON=
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" > /dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            PYTHON=$candidate
            break
        fi
    done
    [ -n "$PYTHON" ] || complain "Python 3.11 or newer is missing. Install it: apt install python3 (Debian 12, Ubuntu 24.04)."
    "$PYTHON" -c 'import venv, ensurepip' 2> /dev/null ||
        complain "Python's venv module is missing. Install it: apt install python3-venv (Debian, Ubuntu)."
}

make_venv() {
    venv=${LLAMAPATCH_VENV:-.venv}
    [ -x "$venv/bin/python" ] || "$PYTHON" -m venv "$venv" || complain "could not make $venv."
    # Older pips run a source archive's own build backend even to download it.
    "$venv/bin/pip" install --quiet --disable-pip-version-check --upgrade 'pip>=24' || complain "pip could not renew itself."
    "$venv/bin/pip" install --quiet --disable-pip-version-check --editable ".$1" || complain "pip could not install llamapatch$1."
    PATH="$PWD/$venv/bin:$PATH"
    export PATH
}

# timed NAME COMMAND...: run it and say how long it took.
timed() {
    label=$1
    shift
    began=$(date +%s)
    echo "== $label" >&2
    "$@" || { code=$?; echo "== $label: failed with status $code" >&2; return $code; }
    echo "== $label: $(($(date +%s) - began)) s" >&2
}
