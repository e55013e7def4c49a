# Sourced by the scripts of a box: its settings, how long each phase of its boot took, and how a failed boot ends.

settings=/etc/gpuctl/box.env
policy=/etc/gpuctl/gpuctl.toml
worker_settings=/etc/gpuctl/worker.env
home=/opt/gpuctl
state=/var/lib/gpuctl
run=/run/gpuctl
worker=$home/bin/gpu-worker

# say TEXT: to the log, and to the console, which EC2 keeps: `aws ec2 get-console-output --latest` shows it of a stopped box, too.
say() {
  echo "gpuctl: $*" >&2
  # Without a console there is still the log.
  { echo "gpuctl: $*" >/dev/console; } 2>/dev/null || true
}

# fail CODE TEXT: this boot is over. The box says why, on its console and if possible in the ledger, and powers off.
fail() {
  trap - ERR
  say "boot failed: $1: $2"
  if [ -x "$worker" ] && [ -r "$policy" ] && [ -n "${GPUCTL_POOL:-}" ]; then
    timeout 30 "$worker" --config "$policy" box fault --pool "$GPUCTL_POOL" "$1" "$2" || say "the ledger was not told"
  fi
  power_off 1 "boot failed: $1"
  exit 1
}

# power_off MINUTES REASON: the minutes let logs be written, and `shutdown -c` be said by someone who is looking.
power_off() {
  say "powering off in $1 min: $2"
  # `-P`, since a plain halt leaves some machines on.
  shutdown -P "+$1" "gpuctl: $2" || systemctl --no-block poweroff || systemctl --force --force poweroff
}

# Any command that fails ends the boot.
fail_at_errors() {
  set -Eeuo pipefail
  trap 'fail boot.script "${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND"' ERR
}

load_settings() {
  [ -r $settings ] || fail boot.settings "$settings is missing; the launch template's user data writes it"
  set -a
  # shellcheck source=/dev/null
  . $settings
  set +a
  local name
  for name in GPUCTL_POOL GPUCTL_REGION GPUCTL_BUCKET GPUCTL_POLICY GPUCTL_CODE GPUCTL_ROLE; do
    [ -n "${!name:-}" ] || fail boot.settings "$settings has no $name"
  done
  case $GPUCTL_ROLE in gpu | app | both) ;; *) fail boot.settings "GPUCTL_ROLE is $GPUCTL_ROLE; it must be gpu, app or both" ;; esac
  device=${GPUCTL_DEVICE:-cuda}
  [ "$GPUCTL_ROLE" != app ] || device=cpu
  case $device in cuda | auto | cpu) ;; *) fail boot.settings "GPUCTL_DEVICE is $device; it must be cuda, auto or cpu" ;; esac
  export AWS_REGION=$GPUCTL_REGION AWS_DEFAULT_REGION=$GPUCTL_REGION
}

# phase NAME: what came since the phase before took so many milliseconds. The worker reads the file, and reports it.
phase() {
  local now
  now=$(milliseconds_up)
  mkdir -p $run
  echo "$1 $((now - ${phase_began:-0}))" >>$run/boot-phases
  phase_began=$now
}

milliseconds_up() {
  local up
  read -r up _ </proc/uptime
  echo "${up/./}0"
}

# cuda_of_driver: 13, 12, or a failed boot. The versions are the least that NVIDIA names for CUDA 13.0 and 12.0.
cuda_of_driver() {
  local version
  command -v nvidia-smi >/dev/null || fail boot.no-gpu "nvidia-smi is not installed; take an AMI with NVIDIA's driver"
  version=$(timeout 120 nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1 | sed -n 1p) ||
    fail boot.no-gpu "the driver sees no GPU: $version"
  if [[ ! $version =~ ^[0-9]+\. ]]; then fail boot.no-gpu "the driver sees no GPU: $version"; fi
  if [ "${version%%.*}" -ge 580 ]; then
    cuda=13
  elif [ "${version%%.*}" -ge 525 ]; then
    cuda=12
  else
    fail boot.driver "driver $version is older than 525, which CUDA 12 needs; take a newer AMI"
  fi
  say "driver $version: CUDA $cuda"
}

# fetch ADDRESS FILE: S3 is asked three times, since network and credentials may come later than this script.
fetch() {
  local try
  for try in 1 2 3; do
    if timeout 600 aws s3 cp --only-show-errors "$1" "$2"; then return 0; fi
    sleep $((try * ${GPUCTL_RETRY_SECONDS:-5}))
  done
  return 1
}
