#!/usr/bin/env bash
# Builds the image on a Docker daemon of its own, without a registry, and runs the tests that need it: test.sh PYTHON
# As root, on Debian. SCRATCH=FOLDER keeps the base system and what Docker has built for the next time.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
skip() { echo "docker-test: skipped, $1"; exit 0; }

[ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] || skip "it needs root on Linux"
for tool in dockerd docker mmdebstrap; do
  command -v "$tool" >/dev/null || skip "there is no $tool: apt-get install --no-install-recommends docker.io mmdebstrap"
done

scratch=${SCRATCH:-$(mktemp -d)}
mkdir -p "$scratch"
scratch=$(realpath "$scratch")
export PATH=/usr/bin:$PATH  # the docker command that came with the daemon
export DOCKER_HOST=unix://$scratch/docker.sock
daemon=
step() { printf '\n== %s (after %d s)\n' "$1" "$SECONDS"; }
finish() {
  if [ -n "$daemon" ]; then
    kill "$daemon" && wait "$daemon" || true
    if mountpoint --quiet "$scratch/exec/netns/default"; then umount "$scratch/exec/netns/default"; fi
  fi
  if [ -z "${SCRATCH-}" ]; then rm -rf "$scratch"; fi
}
trap finish EXIT

base=$scratch/base.tar
if [ ! -f "$base" ]; then
  step "a base system"
  include=python3-minimal,python3-venv,python3-pip,ca-certificates
  if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi
  mmdebstrap --quiet --format=tar --variant=minbase --include=$include bookworm "$base.part"
  unset TMPDIR
  mv "$base.part" "$base"
fi

step "a daemon"
dockerd --iptables=false --ip6tables=false --ip-forward=false --bridge=none --data-root "$scratch/data" \
  --exec-root "$scratch/exec" --pidfile "$scratch/pid" -H "$DOCKER_HOST" >"$scratch/log" 2>&1 &
daemon=$!
until docker version >/dev/null 2>&1; do
  kill -0 "$daemon" 2>/dev/null || { daemon=; skip "dockerd does not run here: $(tail -n 1 "$scratch/log")"; }
  sleep 0.2
done
docker image inspect timetrial-base >/dev/null 2>&1 || docker import "$base" timetrial-base >/dev/null

step "the image"
arguments=--network=host
certificates=/etc/ssl/certs/ca-certificates.crt
if [ -f $certificates ]; then arguments+=" --secret id=ca,src=$certificates"; fi
if [ -f /etc/pip.conf ]; then arguments+=" --secret id=pip,src=/etc/pip.conf"; fi
make docker BASE=timetrial-base DOCKER_ARGS="$arguments"
docker images timetrial

step "tests"
"$python" -c 'from timetrial.isolation.policy import require; require("docker")'  # or the tests would be skipped
"$python" -m pytest -m docker tests/e2e/test_docker.py tests/attacks
containers=$(docker ps --all --quiet)
[ -z "$containers" ] || { echo "docker-test: containers were left behind: $containers" >&2; exit 1; }
step "all is well"
