#!/usr/bin/env bash
# At each boot, as root, before worker or app: the policy, the GPU, and (role gpu) the models on the instance store, which is empty after a stop.
#   usage: every-boot.sh policy|models|app
# Whatever fails powers the box off, with its reason: see lib.sh.
set -u
# shellcheck source=infra/boot/lib.sh
. "$(dirname "$0")/lib.sh"

main() {
  fail_at_errors
  load_settings
  phase_began=$(cat $run/phase-began 2>/dev/null || echo 0)
  case ${1:-} in
    policy) take_policy ;;
    models) take_models ;;
    app) take_app ;;
    *) fail boot.script "every-boot.sh policy|models|app, not ${1:-nothing}" ;;
  esac
  echo "$phase_began" >$run/phase-began
}

# Kernel and systemd first: what came before this script. Then the policy, and by it how long the box may be up.
take_policy() {
  mkdir -p $run
  rm -f $run/boot-phases
  phase_began=0
  local kernel
  kernel=$(systemctl show --property=UserspaceTimestampMonotonic --value)
  echo "kernel $((kernel / 1000))" >>$run/boot-phases
  phase_began=$((kernel / 1000))
  phase system
  fetch_policy
  limit_lifetime
  phase policy
}

# A policy that cannot be fetched or is wrong does not replace the one of the last boot.
fetch_policy() {
  local problem
  if ! fetch "$GPUCTL_POLICY" $policy.new; then
    [ -r $policy ] || fail boot.policy "cannot fetch $GPUCTL_POLICY"
    say "cannot fetch $GPUCTL_POLICY: the policy of the last boot stays"
  elif ! problem=$("$worker" --config $policy.new box lifetime --pool "$GPUCTL_POOL" 2>&1); then
    # Each line without the time and place of a log.
    # shellcheck disable=SC2001 # line by line
    problem=$(sed 's/.*gpu_worker: //' <<<"$problem" | paste --serial --delimiters=';' | cut -c -500)
    [ -r $policy ] || fail boot.policy "$GPUCTL_POLICY is not valid: $problem"
    say "$GPUCTL_POLICY is not valid, the policy of the last boot stays: $problem"
  else
    chmod 644 $policy.new
    mv $policy.new $policy
  fi
}

# The dead man's timer counts from the boot, and is set anew at each: the policy's lifetime may have changed.
limit_lifetime() {
  local seconds
  seconds=$("$worker" --config $policy box lifetime --pool "$GPUCTL_POOL")
  mkdir -p $run /run/systemd/system/gpuctl-deadman.timer.d
  printf '[Timer]\nOnBootSec=\nOnBootSec=%ss\n' "$seconds" >/run/systemd/system/gpuctl-deadman.timer.d/lifetime.conf
  systemctl daemon-reload
  systemctl restart --no-block gpuctl-deadman.timer
}

take_models() {
  [ "$device" = cpu ] || check_gpu
  if [ -n "${GPUCTL_EFS:-}" ]; then mountpoint -q /mnt/shared || fail boot.efs "$GPUCTL_EFS is not mounted at /mnt/shared"; fi
  local store models found
  store=$(fast_disk)
  models=$store/gpuctl-models
  install -d -m 755 "$models"
  timeout 1200 aws s3 sync --only-show-errors "s3://$GPUCTL_BUCKET/models" "$models" ||
    fail boot.models "cannot fetch s3://$GPUCTL_BUCKET/models"
  chmod -R a+rX "$models"
  found=$(GPUCTL_MODELS=$models "$worker" --config $policy models verify 2>&1) ||
    fail boot.models "cannot verify the models: $(tail -1 <<<"$found")"
  if grep -q '"ok": false' <<<"$found"; then
    fail boot.models "s3://$GPUCTL_BUCKET/models: $(grep -m 1 '"problem": "' <<<"$found" | cut -d '"' -f 4)"
  fi
  phase models
  write_worker_settings "$models"
}

check_gpu() {
  cuda_of_driver
  # The first program that uses the GPU would wait for the driver otherwise.
  nvidia-smi --persistence-mode=1 >/dev/null 2>&1 || true
  # CUDA makes /dev/nvidia-uvm at its first use by a program that is set-user-ID root, which a worker with NoNewPrivileges cannot run.
  nvidia-modprobe --unified-memory --create-nvidia-device-file=0 2>/dev/null || modprobe nvidia-uvm 2>/dev/null || true
  [ -e /dev/nvidia-uvm ] || say "there is no /dev/nvidia-uvm: CUDA will not open"
  phase driver
}

# Where models are read from fastest: the instance store, else the disk.
fast_disk() {
  # The Deep Learning AMIs mount it themselves.
  if mountpoint -q /opt/dlami/nvme; then
    echo /opt/dlami/nvme
    return
  fi
  local disk
  disk=$(lsblk --noheadings --nodeps --paths --output NAME,MODEL 2>/dev/null | awk '/Instance Storage/ { print $1; exit }')
  if [ -z "$disk" ]; then
    echo $state
    return
  fi
  mkdir -p $home/nvme
  if ! mountpoint -q $home/nvme; then
    # Empty after each stop; after a restart alone it still has its file system.
    blkid "$disk" >/dev/null || mkfs.ext4 -q "$disk"
    mount -o noatime "$disk" $home/nvme
  fi
  echo $home/nvme
}

write_worker_settings() {
  cat >$worker_settings <<SETTINGS
GPUCTL_CONFIG=$policy
GPUCTL_STATE=$state/state
GPUCTL_CACHE=$state/cache
GPUCTL_MODELS=$1
GPUCTL_ONNXRUNTIME=$home/onnxruntime/libonnxruntime.so
GPUCTL_BOOT_PHASES=$run/boot-phases
LD_LIBRARY_PATH=$home/onnxruntime:$home/onnxruntime/cuda
DEVICE=$device
AWS_REGION=$GPUCTL_REGION
SETTINGS
}

# A compose file that cannot be fetched does not replace the one of the last boot.
take_app() {
  if [ -n "${GPUCTL_EFS:-}" ]; then mountpoint -q /mnt/shared || fail boot.efs "$GPUCTL_EFS is not mounted at /mnt/shared"; fi
  mkdir -p $home/app
  if ! aws s3 sync --only-show-errors "s3://$GPUCTL_BUCKET/app" $home/app; then say "cannot fetch s3://$GPUCTL_BUCKET/app"; fi
  [ -r $home/app/compose.yaml ] || fail boot.app "there is no s3://$GPUCTL_BUCKET/app/compose.yaml"
  phase app
}

main "$@"
