# Scenes of the images and of Compose: built by buildah from the real programs, run by podman and runc, driven by scripts/containers.sh.
# shellcheck disable=SC2154 # root, work and cache are of scripts/test-infra.sh

image_context() {
  need_podman
  need_models
  need_programs
  PROGRAMS=$CARGO_TARGET_DIR/debug scripts/package.sh context cpu
}

need_cpu_image() {
  local context
  context=$(image_context | tail -1)
  build localhost/gpu-worker:cpu "$context" --file "$root/infra/docker/Dockerfile" --target cpu
}

# A job as the image is meant to be run: not root, nothing writable, no network, no capability.
scene_image_cpu() {
  need_cpu_image
  local confined=(podman run --rm --read-only --network=none --cap-drop=all --security-opt=no-new-privileges --tmpfs /tmp
    --volume "$cache/models:/models:ro" --volume "$cache/samples:/in:ro")
  expect "uid 10001" test "$("${confined[@]}" --entrypoint id localhost/gpu-worker:cpu -u)" = 10001
  "${confined[@]}" localhost/gpu-worker:cpu run vision.ocr /in/page.png >"$work/page.json"
  expect "the page to be read" grep -q '"text"' "$work/page.json"
  "${confined[@]}" localhost/gpu-worker:cpu check || expect "each model to run" false
  expect "no worker to be alive" test "$("${confined[@]}" localhost/gpu-worker:cpu box health >/dev/null 2>&1 || echo ill)" = ill
}

# The target for GPUs. CUDA's libraries are 2.4 GB, so the processor's library stands in for them, unless GPUCTL_CUDA says to fetch them.
scene_image_gpu() {
  local context
  context=$(image_context | tail -1)
  if [ -n "${GPUCTL_CUDA:-}" ]; then
    PROGRAMS=$CARGO_TARGET_DIR/debug CUDA=$GPUCTL_CUDA scripts/package.sh context gpu
  else
    mkdir -p "$context/onnxruntime-gpu/cuda"
    cp "$context/onnxruntime/libonnxruntime.so" "$context/onnxruntime-gpu/"
  fi
  build localhost/gpu-worker:gpu "$context" --file "$root/infra/docker/Dockerfile" --target gpu
  local said code=0
  said=$(podman run --rm --read-only --network=none --tmpfs /tmp --volume "$cache/models:/models:ro" localhost/gpu-worker:gpu check 2>&1) || code=$?
  expect "a box without a GPU to fail its check" test $code = 1
  expect "CUDA to be what is missing" grep -qi cuda <<<"$said"
}

# Every combination of the compose files, by Compose itself.
scene_compose_config() {
  local compose gpu profiles=()
  compose=$(find_test_compose | tail -1)
  cd "$root/infra/docker" || return
  "$compose" -f compose.yaml config --quiet
  for gpu in 0 1 2 3 4 5 6 7; do
    profiles+=(--profile "gpu-$gpu")
    "$compose" -f compose.yaml -f compose.gpu.yaml "${profiles[@]}" config >"$work/config"
    expect "the device of gpu-$gpu" grep -qF -- "- \"$gpu\"" "$work/config"
  done
  "$compose" -f compose.yaml --profile tools config --quiet
  GPUCTL_INTERNAL=false AWS_REGION=eu-west-1 "$compose" -f compose.yaml config >"$work/config"
  expect "a way out" grep -qc 'AWS_REGION: eu-west-1' "$work/config"
  expect "the queue's network to be internal only by default" test "$(grep -c 'internal: true' "$work/config")" = 0
}

find_test_compose() {
  local folder=$cache/compose
  if ! cmp -s "$root/scripts/infra/compose.txt" "$folder/compose.txt"; then
    rm -rf "$folder"
    "$python" -m venv "$folder"
    fetch "Compose" "$folder/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$root/scripts/infra/compose.txt"
    cp "$root/scripts/infra/compose.txt" "$folder/"
  fi
  echo "$folder/bin/docker-compose"
}

# The verbs of scripts/containers.sh, from start to purge, with Compose against podman's API. In a network namespace of its own: the machine's
# firewall is not touched.
scene_containers() {
  unshare --net --mount true || skip "no namespaces can be made here"
  need_cpu_image
  COMPOSE=$(find_test_compose | tail -1)
  mkdir -p "$work/tools" "$work/compose-inputs"
  if ! command -v docker >/dev/null; then
    printf '#!/bin/sh\nexec podman "$@"\n' >"$work/tools/docker"
    chmod +x "$work/tools/docker"
  fi
  cp "$cache/samples/page.png" "$work/compose-inputs/"
  chmod -R a+rX "$work"
  # Containers and volumes of its own, over the images that are there: those of a run that was interrupted have lost their network.
  CONTAINERS_STORAGE_CONF=$work/storage.conf
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/graph"\nrunroot = "%s/run"\n[storage.options]\nadditionalimagestores = ["%s/graph"]\n' \
    "$work" "$work" "$containers" >"$CONTAINERS_STORAGE_CONF"
  export COMPOSE PATH=$work/tools:$PATH GPUCTL_INPUTS=$work/compose-inputs GPUCTL_CPUS=1 GPUCTL_MEMORY=2g work
  export -f expect within containers_life
  timeout 300 unshare --net --mount --propagation private bash -euc 'ip link set lo up; containers_life'
}

containers_life() {
  podman system service --time=0 "unix://$work/podman.sock" >"$work/service.log" 2>&1 &
  # shellcheck disable=SC2064 # the id is known now
  trap "kill $!" EXIT
  within 20 "podman's API" test -S "$work/podman.sock"
  export DOCKER_HOST=unix://$work/podman.sock
  local verb=scripts/containers.sh said
  $verb purge --yes
  $verb check
  $verb start
  within 60 "the worker to be alive" $verb health
  $verb gpuctl submit vision.ocr /inputs/page.png
  within 90 "the job's result" sh -c "$verb gpuctl jobs --state succeeded | grep page.png"
  $verb scale 2
  within 60 "two workers" sh -c "test \$($verb health | grep -c alive) = 2"
  $verb status
  expect "the workers' log" sh -c "timeout 5 $verb logs worker | grep -c opened"
  said=$($verb backup "$work/backup.tar" 2>&1) && expect "no backup of a queue in use" false
  expect "the reason" grep -q 'workers are running' <<<"$said"
  $verb stop
  $verb backup "$work/backup.tar"
  expect "the queue in the backup" sh -c "tar -tf '$work/backup.tar' | grep -c '\.sqlite\|\.db'"
  expect "no worker to be alive" sh -c "! $verb health"
  expect "one line of an error" test "$($verb up-gpu 2>&1 | grep -c '^error: ')" = 1
  expect "a wrong number to be refused" sh -c "! $verb scale 0"
  $verb purge --yes
  expect "no volume to be left" test -z "$(podman volume ls --quiet --filter name=gpuctl_)"
}
