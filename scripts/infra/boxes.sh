# Scenes of a box: systemd and cloud-init in a container run infra/boot as it is, with the real gpu-worker; only S3, the driver and Docker are stand-ins.
# shellcheck disable=SC2154 # root, work and cache are of scripts/test-infra.sh
# Debian 12 plays Ubuntu 24.04, which cannot be fetched here. The ledger is the worker's local one: a box in a container has no AWS.

box_image=localhost/gpuctl-box
bucket=$work/s3/bucket
machine=$(uname -m)

need_box() {
  need_podman
  need_models
  build $box_image "$root/scripts/infra/boxes" >/dev/null
  [ -f "$bucket/code/SHA256SUMS" ] || make_bucket
}

# What `gpuctl deploy` and scripts/package.sh put into the bucket.
make_bucket() {
  local programs=$CARGO_TARGET_DIR/debug library
  need_programs
  library=$(find "$cache/onnxruntime" -name 'libonnxruntime.so*' -type f | sed -n 1p)
  mkdir -p "$bucket/code" "$bucket/app" "$bucket/models" "$work/pack"
  strip -o "$work/pack/gpu-worker" "$programs/gpu-worker"
  cp "$library" "$work/pack/libonnxruntime.so"
  tar -C "$work/pack" -czf "$bucket/code/gpu-worker-$machine.tar.gz" gpu-worker
  tar -C "$work/pack" -czf "$bucket/code/onnxruntime-cpu-$machine.tar.gz" libonnxruntime.so
  cp "$bucket/code/onnxruntime-cpu-$machine.tar.gz" "$bucket/code/onnxruntime-cuda12-$machine.tar.gz"
  cp "$bucket/code/onnxruntime-cpu-$machine.tar.gz" "$bucket/code/onnxruntime-cuda13-$machine.tar.gz"
  (cd "$bucket/code" && sha256sum ./*.tar.gz | sed 's|\./||' >SHA256SUMS)
  cp -r "$cache/models/silero-vad-v6" "$bucket/models/"
  cp -r "$root/infra/boot" "$bucket/boot"
  printf 'services: {}\n' >"$bucket/app/compose.yaml"
}

# policy [LINE]: the line belongs to the pool of workers.
policy() {
  printf '%s\n' '[pool.gpu]' 'queue = "jobs"' "${1:-}" 'lifetime_max = "3h"' '[pool.app]' 'command = ["true"]' 'lifetime_max = "1h"' '[worker]' \
    'power_off = "exit-code"'
}

# The template's user data, with further settings in box.env: the last of a name counts.
user_data() {
  printf '%s\n' '#!/bin/bash' "set -- test eu-west-1 gpu gpu bucket s3://bucket/code s3://bucket/boot ''"
  awk '/^      Script: [|]/ { on = 1; next } on && /^[^ ]/ { exit } on { sub(/^        /, ""); print }' "$root/infra/stack.yaml" |
    while IFS= read -r line; do
      if [ "$line" = END ]; then printf '%s\n' "$@"; fi
      printf '%s\n' "$line"
    done
}

# unit BOX COMMAND: what differs from gpu-worker.service. A worker on the local ledger is told which box it is; on EC2 the metadata says it.
unit() {
  mkdir -p "$work/$1/units"
  printf '%s\n' '[Service]' 'ExecStart=' "ExecStart=$2" 'RestartSec=200ms' >"$work/$1/units/scene.conf"
}
serve='/opt/gpuctl/bin/gpu-worker serve --pool gpu --box gpu-1'

# box NAME [SETTING=VALUE…]: an instance at its first boot. DRIVER, POLICY and WORKER are the driver's version, a line of the policy and the worker's
# command, the others settings of box.env.
box() {
  local name=$1 folder=$work/$1 setting driver=580.126.09 line="" command=$serve
  shift
  rm -rf "$folder"
  mkdir -p "$folder/seed" "$folder/s3"
  cp -rl "$work/s3/bucket" "$folder/s3/bucket"
  printf 'instance-id: %s\nlocal-hostname: %s\n' "$name" "$name" >"$folder/seed/meta-data"
  # Debian's minimal system has no locales to set.
  printf '#cloud-config\nlocale: false\n' >"$folder/seed/vendor-data"
  local settings=("GPUCTL_DEVICE=auto" "GPUCTL_RETRY_SECONDS=0")
  for setting in "$@"; do
    case $setting in
      DRIVER=*) driver=${setting#DRIVER=} ;;
      POLICY=*) line=${setting#POLICY=} ;;
      WORKER=*) command=${setting#WORKER=} ;;
      *) settings+=("$setting") ;;
    esac
  done
  user_data "${settings[@]}" >"$folder/seed/user-data"
  printf '%s' "$driver" >"$folder/s3/driver"
  unit "$name" "$command"
  policy "$line" >"$folder/s3/bucket/gpuctl.toml"
  remove "$name"
  podman create --tty --name "$name" --hostname "$name" --systemd=always --network=none --volume "$folder/seed:/var/lib/cloud/seed/nocloud:ro" \
    --volume "$folder/s3:/s3:ro" \
    --volume "$folder/units:/etc/systemd/system/gpu-worker.service.d:ro" $box_image >/dev/null
  podman start "$name" >/dev/null
}

inside() { podman exec "$@"; }
is_off() { [ "$(podman inspect "$1" --format '{{.State.Status}}')" = exited ]; }
told() { [[ $(podman logs "$1" 2>&1) == *"$2"* ]]; }
shutdown_scheduled() { inside "$1" grep -q MODE=poweroff /run/systemd/shutdown/scheduled; }
worker_runs() { [ "$(inside "$1" systemctl is-active gpu-worker)" = active ]; }

# until_box SECONDS NAME WHAT COMMAND…: waits, and no longer once the box has said that its boot failed.
until_box() {
  local end=$((SECONDS + $1)) name=$2 what=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ] || told "$name" "boot failed:"; then
      echo "error: expected $what" >&2
      exit 1
    fi
    sleep 0.2
  done
}

# show NAME: what a reader of a failed scene needs.
show() {
  podman logs "$1" 2>&1 | grep gpuctl | tail -40
  podman exec "$1" journalctl --no-pager --lines=40 2>/dev/null || true
}

# A good first boot: cloud-init, GPU, archives, models, worker, idle, off. Then the same box again, as after a start.
scene_box_first_boot() {
  need_box
  # A worker that systemd started is no box of the local ledger, and so never idle: the real one ends after two seconds, and the code is the scene's.
  box good "WORKER=/bin/sh -c 'timeout 2 $serve; exit 10'"
  trap 'show good; remove good' EXIT
  until_box 90 good "the box to be off, since it is idle" is_off good
  expect "CUDA 13 for driver 580" told good "driver 580.126.09: CUDA 13"
  expect "the models to be checked" told good "models checked"
  expect "first boot to end well" told good "first boot done: role gpu, pool gpu"
  expect "the hook to power off" told good "the worker ended: idle; powering off"
  rm -rf "$work/good/s3/bucket/models/silero-vad-v6"
  cp -r "$cache/models/magika-v3-3" "$work/good/s3/bucket/models/"
  unit good "$serve"
  podman start good >/dev/null
  until_box 60 good "the worker to run at the second boot" worker_runs good
  expect "the new models" inside good test -f /var/lib/gpuctl/gpuctl-models/magika-v3-3/model.toml
  expect "each phase of the boot" inside good grep -cE '^(kernel|system|policy|driver|models) [0-9]+$' /run/gpuctl/boot-phases
  trap - EXIT
  remove good
}

# Told to stop: drained, and the box stays. Then crashes: five in a row, and the dead man's unit schedules the end, unless a user looks at the box.
scene_box_crashes() {
  need_box
  box crash
  trap 'show crash; remove crash' EXIT
  until_box 90 crash "the worker to run" worker_runs crash
  # shellcheck disable=SC2016 # the shell of the box expands it
  expect "the worker to be unprivileged" inside crash sh -c 'test "$(ps -o user= -C gpu-worker | sort -u)" = gpuctl'
  inside crash systemctl stop gpu-worker
  expect "a clean end" test "$(inside crash systemctl show gpu-worker --property=Result --value)" = success
  expect "the box to stay up" test "$(podman inspect crash --format '{{.State.Status}}')" = running
  expect "no shutdown yet" inside crash sh -c '! test -e /run/systemd/shutdown/scheduled'

  inside crash sh -c 'date --utc --date "2 hours" +%Y-%m-%dT%H:%M:%SZ >/var/lib/gpuctl/state/keep-until'
  inside crash sh -c 'ln -sf /bin/false /opt/gpuctl/bin/gpu-worker && systemctl start --no-block gpu-worker'
  within 30 "the dead man's shutdown" shutdown_scheduled crash
  expect "no further start" test "$(inside crash systemctl is-failed gpu-worker)" = failed
  expect "a user's keep-until to be heeded" told crash "powering off in 12"
  inside crash sh -c 'shutdown -c; rm /var/lib/gpuctl/state/keep-until; systemctl start gpuctl-deadman@worker'
  expect "the end in a minute without it" told crash "powering off in 1 min: its worker failed again and again"
  trap - EXIT
  remove crash
}

# The dead man's timer: set from the policy at each boot, and a worker that does not end does not stop it.
scene_box_lifetime() {
  need_box
  box old
  trap 'show old; remove old' EXIT
  until_box 90 old "the worker to run" worker_runs old
  # lifetime_max 3 h, drain 30 s, ten minutes.
  expect "the policy's lifetime" inside old grep -q '^OnBootSec=11430s' /run/systemd/system/gpuctl-deadman.timer.d/lifetime.conf
  expect "the timer to wait" test "$(inside old systemctl is-active gpuctl-deadman.timer)" = active
  inside old sh -c 'sed -i "s/^OnBootSec=.*s/OnBootSec=1s/" /run/systemd/system/gpuctl-deadman.timer.d/lifetime.conf
    systemctl daemon-reload; systemctl restart gpuctl-deadman.timer'
  within 30 "the shutdown at the end of the lifetime" shutdown_scheduled old
  expect "the reason" told old "this box has been up for its lifetime_max"
  trap - EXIT
  remove old
}

# First boots that fail: each powers off, and says why on its console. Side by side: they wait more than they work.
scene_box_failed_first_boots() {
  need_box
  box no-gpu DRIVER=
  box old-driver DRIVER=470.256.02
  box no-code GPUCTL_CODE=s3://bucket/elsewhere
  box no-policy GPUCTL_POLICY=s3://bucket/none.toml
  box wrong-role GPUCTL_ROLE=cpu
  box wrong-policy 'POLICY=idle_stop = "soon"'
  box no-cuda GPUCTL_DEVICE=cuda DRIVER=535.104.05
  trap 'remove no-gpu old-driver no-code no-policy wrong-policy wrong-role no-cuda' EXIT
  failed_with no-gpu "boot.no-gpu: the driver sees no GPU: NVIDIA-SMI has failed"
  failed_with old-driver "boot.driver: driver 470.256.02 is older than 525"
  failed_with no-code "boot.fetch: cannot fetch s3://bucket/elsewhere/SHA256SUMS"
  failed_with no-policy "boot.policy: cannot fetch s3://bucket/none.toml"
  failed_with wrong-policy "boot.policy: s3://bucket/gpuctl.toml is not valid: /etc/gpuctl/gpuctl.toml.new cannot be used;line 3: pool.gpu.idle_stop"
  failed_with wrong-role "boot.settings: GPUCTL_ROLE is cpu; it must be gpu, app or both"
  failed_with no-cuda "boot.models: gpu-worker check"
  expect "CUDA 12 for driver 535" told no-cuda "driver 535.104.05: CUDA 12"
}

# failed_with NAME TEXT
failed_with() {
  within 90 "$1 to say: $2" told "$1" "boot failed: $2" || { show "$1"; exit 1; }
  within 20 "the shutdown of $1" shutdown_scheduled "$1" || { show "$1"; exit 1; }
}

# The app's box: the user's compose file from S3, and the same timer.
scene_box_app() {
  need_box
  box app GPUCTL_ROLE=app GPUCTL_POOL=app
  trap 'show app; remove app' EXIT
  until_box 90 app "the app to be up" inside app grep -q 'compose --project-name app --file /opt/gpuctl/app/compose.yaml up' /var/log/docker-calls
  expect "the policy's lifetime" inside app grep -q '^OnBootSec=4230s' /run/systemd/system/gpuctl-deadman.timer.d/lifetime.conf
  expect "no worker" inside app sh -c '! systemctl is-enabled gpu-worker'
  trap - EXIT
  remove app
}

# The units by systemd's own checks, where their programs and users exist.
scene_box_units() {
  need_box
  podman run --rm --network=none --volume "$root/infra/boot:/opt/gpuctl/boot:ro" $box_image bash -euc '
    mkdir -p /opt/gpuctl/bin && cp /bin/true /opt/gpuctl/bin/gpu-worker
    useradd --system gpuctl
    cp /opt/gpuctl/boot/*.service /opt/gpuctl/boot/*.timer /etc/systemd/system/
    sed "s|@EFS@|fs-1.efs.eu-west-1.amazonaws.com|" /opt/gpuctl/boot/mnt-shared.mount >/etc/systemd/system/mnt-shared.mount
    cd /etc/systemd/system
    systemd-analyze verify gpu*.service gpuctl-deadman@worker.service gpuctl-deadman.timer mnt-shared.mount
    systemd-analyze security --offline=true --threshold=50 gpu-worker.service'
}
