#!/usr/bin/env bash
# An AMI of your own, from a box whose first boot is done: a launched box then starts without its first boot, 1 to 3 minutes sooner.
#   usage: scripts/bake-ami.sh INSTANCE NAME [--keep N] [--dry-run]
#     INSTANCE     a *stopped* box of the stack, set up by its first boot; it is not changed
#     --keep N     afterwards delete this stack's older images and their snapshots, all but the newest N
#     --dry-run    say what would be done, by EC2's own dry run; makes and deletes nothing
# Models are not in it: on a volume from a snapshot each block is fetched slowly at its first use, so they come from S3 at each boot.
# An image costs its snapshots: $0.05 a GB and month in us-east-1 for what is used of the disk.
set -euo pipefail

KEEP_MAX=100

die() {
  echo "error: $1" >&2
  [ $# -lt 2 ] || echo "hint: $2" >&2
  exit 1
}

main() {
  local instance="" name="" keep="" dry_run=""
  while [ $# -gt 0 ]; do
    case $1 in
      --keep) keep=${2:-} && shift ;;
      --dry-run) dry_run=1 ;;
      -*) die "unknown option $1" "$(sed -n 's/^#   usage: //p' "$0")" ;;
      *) if [ -z "$instance" ]; then instance=$1; elif [ -z "$name" ]; then name=$1; else die "one instance and one name, not also $1"; fi ;;
    esac
    shift
  done
  [[ $instance =~ ^i-[0-9a-f]{8,17}$ ]] || die "${instance:-(none)} is not the id of an instance" "$(sed -n 's/^#   usage: //p' "$0")"
  [[ $name =~ ^[A-Za-z0-9()./_-]{3,128}$ ]] || die "${name:-(none)} is not a name for an image" "3 to 128 of A-Z a-z 0-9 ( ) . / _ -"
  if [ -n "$keep" ]; then
    [[ $keep =~ ^[0-9]+$ ]] && [ "$keep" -ge 1 ] && [ "$keep" -le $KEEP_MAX ] || die "--keep needs a number from 1 to $KEEP_MAX, not $keep"
  fi
  command -v aws >/dev/null || die "the AWS CLI is not installed"
  bake "$instance" "$name" "$dry_run"
  if [ -n "$keep" ]; then delete_older "$keep" "$dry_run"; fi
}

# bake INSTANCE NAME DRY_RUN
bake() {
  local state image said
  # shellcheck disable=SC2016 # JMESPath's quotes
  read -r state stack < <(aws ec2 describe-instances --instance-ids "$1" --output text \
    --query 'Reservations[0].Instances[0].[State.Name, Tags[?Key==`gpuctl:stack`]|[0].Value]') || die "EC2 does not show $1"
  [ "$stack" != None ] || die "$1 has no tag gpuctl:stack" "name a box that gpuctl deploy made"
  # A running box may be in the middle of a write.
  [ "$state" = stopped ] || die "$1 is $state, and must be stopped" "gpuctl stop-gpu --wait"
  local request=(aws ec2 create-image --instance-id "$1" --name "$2" --description "gpuctl: box of $stack after its first boot"
    --tag-specifications "ResourceType=image,Tags=[{Key=gpuctl:stack,Value=$stack}]" "ResourceType=snapshot,Tags=[{Key=gpuctl:stack,Value=$stack}]"
    --query ImageId --output text)
  if [ -n "$3" ]; then
    said=$("${request[@]}" --dry-run 2>&1) || true
    [[ $said == *DryRunOperation* ]] || die "EC2 would refuse it: $said"
    echo "would make the image $2 of $1 (stack $stack)"
    return
  fi
  image=$("${request[@]}")
  echo "making $image; this takes minutes"
  aws ec2 wait image-available --image-ids "$image" || die "$image is not available after ten minutes" "aws ec2 describe-images --image-ids $image"
  echo "$image is available; use it with: gpuctl deploy --set GpuAmi=$image"
}

# delete_older KEEP DRY_RUN: the stack's own images only, newest first.
delete_older() {
  local images image snapshot
  images=$(aws ec2 describe-images --owners self --filters "Name=tag:gpuctl:stack,Values=$stack" --output text \
    --query 'reverse(sort_by(Images, &CreationDate))[].ImageId' | tr '\t' '\n' | tail -n "+$(($1 + 1))")
  for image in $images; do
    if [ -n "$2" ]; then
      echo "would delete $image and its snapshots"
      continue
    fi
    local snapshots
    snapshots=$(aws ec2 describe-images --image-ids "$image" --query 'Images[0].BlockDeviceMappings[].Ebs.SnapshotId' --output text)
    aws ec2 deregister-image --image-id "$image" >/dev/null
    for snapshot in $snapshots; do aws ec2 delete-snapshot --snapshot-id "$snapshot"; done
    echo "deleted $image and its snapshots"
  done
}

main "$@"
