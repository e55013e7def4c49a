#!/usr/bin/env bash
# Makes an instance a box, once, as root: installs the worker (role gpu) or Docker (role app), the units, and starts them.
#   usage: first-boot.sh      from the launch template's user data; reads /etc/gpuctl/box.env
# Whatever fails powers the box off, with the reason on its console: an instance that cannot work must not cost.
# Written for the Deep Learning AMI of Ubuntu 24.04; what else it knows of other systems is in README.md.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=infra/boot/lib.sh
. "$here/lib.sh"

# The longest that this script may take, after which the box powers off; nothing else would notice a script that hangs.
FIRST_BOOT_MINUTES_MAX=30

main() {
  fail_at_errors
  guard
  load_settings
  choose_runtime
  install_tools
  make_user
  install_archives
  install_units
  mount_efs
  [ "$GPUCTL_ROLE" = gpu ] || install_docker
  start_units
  release_guard
  say "first boot done: role $GPUCTL_ROLE, pool $GPUCTL_POOL"
}

# Both guards act without this script: one when it takes too long, one when cloud-init reports that user data failed.
guard() {
  mkdir -p /etc/systemd/system/cloud-final.service.d $home/boot
  [ "$here" = $home/boot ] || cp "$here"/* $home/boot/
  # S3 keeps no modes.
  chmod 755 $home $home/boot $home/boot/*.sh
  cp "$home/boot/gpuctl-deadman@.service" /etc/systemd/system/
  printf '[Unit]\nOnFailure=gpuctl-deadman@first-boot.service\n' >/etc/systemd/system/cloud-final.service.d/gpuctl.conf
  systemctl daemon-reload
  systemctl stop gpuctl-first-boot.timer 2>/dev/null || true
  systemd-run --quiet --unit=gpuctl-first-boot --on-active="${FIRST_BOOT_MINUTES_MAX}min" $home/boot/deadman.sh slow-first-boot
}

release_guard() {
  systemctl stop gpuctl-first-boot.timer
}

# Before anything is downloaded: a box without a usable GPU fails in seconds.
choose_runtime() {
  runtime=cpu
  if [ "$device" != cpu ]; then
    cuda_of_driver
    runtime=cuda$cuda
  fi
}

# install_package NAME_ON_DEBIAN [NAME_ON_FEDORA]
install_package() {
  if command -v apt-get >/dev/null; then
    apt install "$1" >/dev/null 2>&1 || { apt update && apt install "$1" >/dev/null; }
  else
    timeout 300 dnf install -y -q "${2:-$1}" >/dev/null
  fi
}

# Within minutes also where no package mirror can be reached, as in a subnet that has endpoints alone.
apt() {
  DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -o DPkg::Lock::Timeout=120 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 \
    -o Acquire::Retries=1 -y -qq --no-install-recommends "$@"
}

# The Deep Learning AMIs and Amazon Linux have the AWS CLI. Ubuntu 24.04 itself has it as a snap only.
install_tools() {
  command -v aws >/dev/null || snap install aws-cli --classic || install_package awscli
  command -v aws >/dev/null || fail boot.tools "the AWS CLI is not installed and cannot be; take an AMI that has it"
  # Models that speak need it; `gpu-worker check` says so where it is missing.
  if [ "$GPUCTL_ROLE" != app ] && ! command -v espeak-ng >/dev/null; then install_package espeak-ng || say "espeak-ng cannot be installed"; fi
}

make_user() {
  getent group gpuctl >/dev/null || groupadd --system gpuctl
  getent passwd gpuctl >/dev/null ||
    useradd --system --gid gpuctl --home-dir $state --shell /usr/sbin/nologin --no-log-init gpuctl
  # Who reads a GPU's device files where they are not open to all.
  local group
  for group in video render; do
    if getent group $group >/dev/null; then usermod -aG $group gpuctl; fi
  done
  install -d -m 755 $home/bin
  install -d -m 700 -o gpuctl -g gpuctl $state $state/state $state/cache
}

# Every archive is compared with SHA256SUMS before it is unpacked.
install_archives() {
  work=$(mktemp -d)
  fetch "$GPUCTL_CODE/SHA256SUMS" "$work/SHA256SUMS" || fail boot.fetch "cannot fetch $GPUCTL_CODE/SHA256SUMS"
  install_archive "gpu-worker-$(uname -m).tar.gz" $home/bin
  if [ "$GPUCTL_ROLE" != app ]; then install_archive "onnxruntime-$runtime-$(uname -m).tar.gz" $home/onnxruntime; fi
  rm -rf "$work"
}

# What is there already, e.g. in an image of one's own, is not fetched again.
install_archive() {
  local name=$1 folder=$2 wanted installed=$home/installed/$1
  wanted=$(grep -F "  $name" "$work/SHA256SUMS") || fail boot.fetch "$GPUCTL_CODE/SHA256SUMS has no $name"
  if [ "$(cat "$installed" 2>/dev/null)" = "$wanted" ]; then return; fi
  fetch "$GPUCTL_CODE/$name" "$work/$name" || fail boot.fetch "cannot fetch $GPUCTL_CODE/$name"
  (cd "$work" && sha256sum --check --quiet --strict <<<"$wanted") || fail boot.fetch "$name is not what SHA256SUMS says"
  mkdir -p "$folder" $home/installed
  tar -xzf "$work/$name" -C "$folder" --no-same-owner
  echo "$wanted" >"$installed"
  rm "$work/$name"
}

install_units() {
  cp "$home"/boot/*.service "$home"/boot/*.timer /etc/systemd/system/
  systemctl daemon-reload
}

# Where a file system is named, jobs and app find it at /mnt/shared; a box without it must not start.
mount_efs() {
  [ -n "${GPUCTL_EFS:-}" ] || return 0
  command -v mount.nfs4 >/dev/null || install_package nfs-common nfs-utils
  mkdir -p /mnt/shared
  sed "s|@EFS@|$GPUCTL_EFS.efs.$GPUCTL_REGION.amazonaws.com|" "$home/boot/mnt-shared.mount" >/etc/systemd/system/mnt-shared.mount
  systemctl daemon-reload
  systemctl enable --quiet mnt-shared.mount
  systemctl start mnt-shared.mount || fail boot.efs "cannot mount $GPUCTL_EFS at /mnt/shared"
}

# The user's compose file needs the plugin; Ubuntu calls it docker-compose-v2.
install_docker() {
  command -v docker >/dev/null || install_package docker.io docker
  docker compose version >/dev/null 2>&1 || install_package docker-compose-v2 docker-compose-plugin
  systemctl enable --quiet --now docker.service
}

# Without waiting: what they are ordered after may be what runs this script.
start_units() {
  systemctl enable --quiet gpuctl-deadman.timer gpuctl-boot.service
  systemctl start gpuctl-deadman.timer
  if [ "$GPUCTL_ROLE" != app ]; then
    systemctl enable --quiet gpuctl-models.service gpu-worker.service
    # What is checked once: that each model runs, on the device it is to run on.
    systemctl start gpuctl-models.service || unit_failed
    check_models
    systemctl start --no-block gpu-worker.service
  fi
  if [ "$GPUCTL_ROLE" != gpu ]; then
    systemctl enable --quiet gpuctl-app.service
    systemctl start --no-block gpuctl-app.service
  fi
}

# The unit has said why, and powers the box off.
unit_failed() {
  trap - ERR
  exit 1
}

check_models() {
  local findings
  findings=$(systemd-run --quiet --pipe --wait --collect --uid=gpuctl --gid=gpuctl --property=EnvironmentFile=$worker_settings \
    $worker --config $policy check 2>&1) ||
    fail boot.models "gpu-worker check: $(grep -E 'FAILED|ERROR' <<<"$findings" | head -1 | cut -c -300)"
  say "models checked"
  echo "$findings"
}

main "$@"
