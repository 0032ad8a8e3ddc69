#!/bin/sh
# Makes .venv and installs baseai into it, editable, with the exact versions of constraints.txt.
#
#   tools/setup.sh [EXTRAS]      EXTRAS: comma-separated extras of pyproject.toml, e.g. train,dev; may be empty
#
# PYTHON=/path/to/python chooses the interpreter; otherwise the best one on the PATH is taken. VENV names another
# folder than .venv. pip's own words go to setup.log in that folder and are shown when it fails. Repeating it is harmless.
set -eu

cd "$(dirname "$0")/.."
extras=${1-}
venv=${VENV:-.venv}
log=$venv/setup.log

say() { printf '%s\n' "$*"; }
refuse() {
    printf 'baseai: %s\n' "$*" >&2
    exit 1
}

# --- which Python --------------------------------------------------------------------------------------------
old=''      # a Python that runs and is too old
venvless='' # a Python that is new enough and cannot make a virtual environment
python=''
if [ -n "${PYTHON-}" ]; then
    set -- "$PYTHON"
else
    set -- python3 python3.13 python3.12 python3.11 python3.14 python
fi
for candidate in "$@"; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        old=${old:-"$candidate is Python $version"}
    elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        venvless=${venvless:-$version}
    else
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    if [ -n "$venvless" ]; then
        refuse "Python $venvless lacks its venv module: install python3-venv (apt install python3-venv) and run again."
    elif [ -n "$old" ]; then
        refuse "Python 3.11 or newer is needed and $old: install a newer one, or name it with PYTHON=/path/to/python3, and run again."
    elif [ -n "${PYTHON-}" ]; then
        refuse "PYTHON=$PYTHON does not run: name a Python 3.11 or newer and run again."
    else
        refuse "there is no python3 on the PATH: install Python 3.11 or newer and run again."
    fi
fi

# --- the virtual environment ---------------------------------------------------------------------------------
# Its scripts name their folder, so one that was copied or moved, or whose Python is gone, is made anew.
here=$(pwd -P)
if [ -e "$venv" ]; then
    if ! { [ -f "$venv/folder" ] && [ "$(cat "$venv/folder")" = "$here" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
        if [ -e "$venv/pyvenv.cfg" ] || [ -e "$venv/folder" ]; then
            say "setup: $venv is not whole or was made elsewhere; making it anew"
            rm -rf "$venv"
        else
            refuse "$venv exists and is no virtual environment: move it away and run again."
        fi
    fi
fi
if [ ! -e "$venv" ]; then
    say "setup: Python $version, environment in $venv"
    mkdir -p "$venv"
    printf '%s\n' "$here" >"$venv/folder"
    if ! "$python" -m venv "$venv" >"$log" 2>&1; then
        cat "$log" >&2
        refuse "no virtual environment could be made in $venv; what Python said stands above."
    fi
fi

# --- the packages --------------------------------------------------------------------------------------------
what=.${extras:+"[$extras]"}
say "setup: installing baseai${extras:+ with $extras}; the first time takes minutes (details: $log)"
set -- -m pip install --disable-pip-version-check --no-input --progress-bar off -c constraints.txt -e "$what"
printf '$ python %s\n' "$*" >>"$log"
before=$(wc -l <"$log")
"$venv/bin/python" "$@" >>"$log" 2>&1 &
pip=$!
trap 'kill $pip 2>/dev/null; exit 130' INT TERM HUP
started=$(date +%s)
shown=0
while kill -0 $pip 2>/dev/null; do
    sleep 1
    elapsed=$(($(date +%s) - started))
    if [ $((elapsed - shown)) -ge 15 ]; then
        shown=$elapsed
        found=$(tail -n "+$before" "$log" | grep -c '^Collecting ' || true)
        if tail -n 3 "$log" | grep -q '^Installing collected'; then
            say "setup: $elapsed s, unpacking $found packages"
        else
            say "setup: $elapsed s, $found packages fetched"
        fi
    fi
done
status=0
wait $pip || status=$?
trap - INT TERM HUP
if [ $status -ne 0 ]; then
    tail -n "+$before" "$log" | tail -n 40 >&2
    refuse "pip could not install baseai${extras:+ with $extras}; its last words stand above, all of them in $log."
fi
if tail -n "+$before" "$log" | grep 'does not provide the extra' >&2; then
    refuse "'$extras' names an extra that pyproject.toml does not have; it has train, serve and dev, and a node's own."
fi
say "setup: ready after $(($(date +%s) - started)) s"
