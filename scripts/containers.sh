#!/usr/bin/env bash
# Workers in containers, on this machine: infra/docker with Docker Compose.
#   usage: scripts/containers.sh VERB [ARGUMENT…]
#     check            are Docker, Compose, the programs and (for GPUs) the driver here
#     setup            make inputs/ and the settings file .env, and fetch models and ONNX Runtime
#     build [gpu]      the image cpu, or gpu
#     start            the workers on the processor            up-gpu      one worker a GPU
#     stop, restart    of all workers                          down-gpu    end those of GPUs
#     scale N          that number of workers on the processor
#     status, health   containers; the queue and its jobs; whether each worker is alive
#     logs [SERVICE]   follow what they write                  monitor     status every five seconds
#     verify-gpu       run each model once on the GPU, with timings
#     gpuctl ARG…      the command line on their queue, e.g. gpuctl submit vision.ocr /inputs/page.png
#     backup FILE      queue, results and ledger as a tar archive
#     purge            remove containers, queue, results and models, after asking; --yes does not ask
# The engine is Docker's, or what DOCKER_HOST names; COMPOSE is its command where `docker compose` is not.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=infra/docker
settings=$folder/.env

GPUS_MAX=8
WORKERS_MAX=64

die() {
  echo "error: $1" >&2
  [ $# -lt 2 ] || echo "hint: $2" >&2
  exit 1
}

# compose ARGUMENT…: with both files, so that each verb sees all services.
compose() {
  local files=(-f "$folder/compose.yaml" -f "$folder/compose.gpu.yaml")
  if [ -r "$settings" ]; then files+=(--env-file "$settings"); fi
  "${compose_command[@]}" "${files[@]}" "$@"
}

find_compose() {
  if [ -n "${COMPOSE:-}" ]; then
    read -ra compose_command <<<"$COMPOSE"
  elif docker compose version >/dev/null 2>&1; then
    compose_command=(docker compose)
  elif command -v docker-compose >/dev/null; then
    compose_command=(docker-compose)
  else
    die "Docker Compose is not installed" "install Docker's package docker-compose-plugin, or set COMPOSE"
  fi
}

need_engine() {
  find_compose
  docker version >/dev/null 2>&1 || die "Docker does not answer" "start it (systemctl start docker), or set DOCKER_HOST"
}

need_image() {
  docker image inspect "$1" >/dev/null 2>&1 || die "the image $1 is not built" "scripts/containers.sh build${2:+ $2}"
}

# gpus: sets `services` to one service for each GPU of this machine.
gpus() {
  command -v nvidia-smi >/dev/null || die "nvidia-smi is not installed" "install NVIDIA's driver and its container toolkit"
  local count
  count=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ') || die "the driver sees no GPU" "run nvidia-smi to see why"
  name_services $((count < GPUS_MAX ? count : GPUS_MAX))
}

# name_services COUNT: sets `services` and the options that switch them on.
name_services() {
  local number
  services=() profiles=()
  for ((number = 0; number < $1; number++)); do
    services+=("gpu-$number")
    profiles+=(--profile "gpu-$number")
  done
}

check() {
  need_engine
  echo "engine: $(docker version --format '{{.Server.Version}}'), $("${compose_command[@]}" version --short)"
  compose config --quiet || die "the compose files are not valid with $settings"
  docker image inspect localhost/gpu-worker:cpu >/dev/null 2>&1 && echo "image cpu: built" || echo "image cpu: not built"
  docker image inspect localhost/gpu-worker:gpu >/dev/null 2>&1 && echo "image gpu: built" || echo "image gpu: not built"
  if command -v nvidia-smi >/dev/null; then
    gpus
    echo "GPUs: ${#services[@]}"
    docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q nvidia || echo "NVIDIA's container toolkit is not installed: no container sees a GPU"
  else
    echo "no GPU: nvidia-smi is not installed"
  fi
}

setup() {
  mkdir -p $folder/inputs
  if ! [ -e $settings ]; then
    printf '%s\n' '# Settings of infra/docker/compose.yaml; what is not set has the default there.' '#GPUCTL_INPUTS=/path/with/inputs' '#GPUCTL_CPUS=2' \
      '#GPUCTL_MEMORY=4g' >$settings
  fi
  python3 scripts/fetch-models.py
  echo "put inputs into $folder/inputs; settings are in $settings"
}

build() {
  need_engine
  local target=${1:-cpu} context
  case $target in cpu | gpu) ;; *) die "there is no target $target" "build cpu, or build gpu" ;; esac
  context=$(scripts/package.sh context "$target")
  docker build --file $folder/Dockerfile --target "$target" ${BASE:+--build-arg "BASE=$BASE"} --tag "localhost/gpu-worker:$target" "$context"
}

start() {
  need_engine
  need_image localhost/gpu-worker:cpu
  mkdir -p $folder/inputs
  copy_models cpu
  compose up --detach --remove-orphans worker
}

# The volume of models is filled once, from the cache; the containers have no way to fetch them.
copy_models() {
  local models=${GPUCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpuctl}/models
  [ -d "$models" ] || die "there are no models in $models" "scripts/containers.sh setup"
  docker run --rm --user 0:0 --network none --entrypoint /bin/sh --volume gpuctl_models:/models --volume "$models:/from:ro" "localhost/gpu-worker:$1" \
    -c 'cp --recursive --no-clobber /from/. /models/' || die "models cannot be copied into the volume gpuctl_models"
}

up_gpu() {
  need_engine
  need_image localhost/gpu-worker:gpu gpu
  gpus
  mkdir -p $folder/inputs
  copy_models gpu
  compose "${profiles[@]}" up --detach "${services[@]}"
}

down_gpu() {
  need_engine
  name_services $GPUS_MAX
  compose "${profiles[@]}" rm --stop --force "${services[@]}"
}

# Of containers that exist, whatever their profile.
everywhere() {
  need_engine
  name_services $GPUS_MAX
  compose "${profiles[@]}" "$@"
}

scale() {
  [[ ${1:-} =~ ^[0-9]+$ ]] && [ "$1" -ge 1 ] && [ "$1" -le $WORKERS_MAX ] || die "scale needs a number from 1 to $WORKERS_MAX, not ${1:-nothing}"
  need_engine
  need_image localhost/gpu-worker:cpu
  compose up --detach --no-recreate --scale "worker=$1" worker
}

workers() { everywhere ps --quiet; }

status() {
  everywhere ps
  gpuctl status
}

health() {
  local ill=0 container name
  need_engine
  [ -n "$(workers)" ] || die "no worker is running" "scripts/containers.sh start"
  for container in $(workers); do
    name=$(docker inspect --format '{{.Name}}' "$container")
    if docker exec "$container" gpu-worker box health >/dev/null 2>&1; then
      echo "${name#/}: alive"
    else
      echo "${name#/}: not alive; see scripts/containers.sh logs"
      ill=1
    fi
  done
  return $ill
}

verify_gpu() {
  need_engine
  need_image localhost/gpu-worker:gpu gpu
  gpus
  compose --profile gpu-0 run --rm --no-deps --entrypoint gpu-worker gpu-0 check || die "a model does not run on the GPU; see the table"
}

# In a worker that runs, else in a container of its own.
gpuctl() {
  need_engine
  local container
  container=$(workers | sed -n 1p)
  if [ -n "$container" ]; then
    docker exec "$container" gpuctl "$@"
  else
    compose --profile tools run --rm --no-deps gpuctl "$@"
  fi
}

backup() {
  need_engine
  [ -n "${1:-}" ] || die "backup needs a file" "scripts/containers.sh backup gpuctl.tar"
  [ ! -e "$1" ] || die "$1 exists" "name another file"
  need_image localhost/gpu-worker:cpu
  [ -z "$(workers)" ] || die "workers are running, and the queue changes under the copy" "scripts/containers.sh stop"
  docker run --rm --network none --entrypoint tar --volume gpuctl_state:/state:ro localhost/gpu-worker:cpu -C /state -c . >"$1" || {
    rm -f "$1"
    die "the state cannot be read"
  }
  echo "$1: $(stat -c %s "$1") bytes"
}

purge() {
  need_engine
  if [ "${1:-}" != --yes ]; then
    read -rp "remove containers, queue, results and models of this machine? [y/N] " answer || answer=
    [ "$answer" = y ] || die "nothing was removed"
  fi
  everywhere --profile tools down --volumes --remove-orphans
}

verb=${1:-}
[ $# = 0 ] || shift
case $verb in
  check | setup | build | start | scale | status | health | gpuctl | backup | purge) "$verb" "$@" ;;
  stop) everywhere stop ;;
  restart) everywhere restart ;;
  up-gpu) up_gpu ;;
  down-gpu) down_gpu ;;
  verify-gpu) verify_gpu ;;
  logs) everywhere logs --follow "$@" ;;
  monitor) while status; do sleep 5; done ;;
  *)
    sed -n '2,/^set /{ /^set /d; s/^# \{0,1\}//; p }' "$0" >&2
    die "unknown verb ${verb:-(none)}"
    ;;
esac
