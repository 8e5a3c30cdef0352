#!/usr/bin/env bash
# Builds the wheel and proves that it needs no checkout: wheel.sh PYTHON, which makes the environments.
set -euo pipefail
unset PYTHONPATH
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/empty"
cd "$work/empty"

"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$root"
wheel=$(echo "$work"/*.whl)

echo "== a trial from the wheel, in an empty folder"
"$python" -m venv "$work/full"
"$work/full/bin/python" -m pip install --quiet "$wheel[mini]"
"$work/full/bin/timetrial" list
"$work/full/bin/timetrial" freeze --check
"$work/full/bin/timetrial" run --ruleset smoke --submission adamw --workload lobes --out runs

echo "== scoring with numpy and scipy alone"
"$python" -m venv "$work/light"
"$work/light/bin/python" -m pip install --quiet numpy scipy
"$work/light/bin/python" -m pip install --quiet --no-deps "$wheel"
if "$work/light/bin/python" -c 'import jax' 2>/dev/null; then
  echo "wheel.sh: jax is there, so this proves nothing" >&2
  exit 1
fi
"$work/light/bin/python" -m timetrial_scoring runs
