#!/usr/bin/env bash
# Cargo's compiler for the workspace's own crates during the tests: the linter, which compiles as well. Any warning is an error.
set -euo pipefail

# Checks a crate once more without the feature `deploy`, with which no test is built. Its dependencies are those of the tests: to build them for
# other features would take minutes.
without_deploy() {
  local arguments=() out code=0
  out=$(mktemp -d)
  while [ $# -gt 0 ]; do
    case $1=${2:-} in
      --cfg='feature="deploy"' | --cfg='feature="default"' | -C=incremental=*) shift ;;
      --out-dir=*) arguments+=(--out-dir "$out") && shift ;;
      --emit=*) arguments+=(--emit=metadata) ;;
      # Cargo takes a second notice of an artifact for that of another.
      --json=*) arguments+=("${1/,artifacts/}") ;;
      *) arguments+=("$1") ;;
    esac
    shift
  done
  "${arguments[@]}" -D warnings || code=$?
  rm -r "$out"
  return $code
}

clippy-driver "$@" -D warnings
case " $* " in
  *' --test '*) ;;
  *' --crate-name gpuctl '*'feature="deploy"'* | *' --crate-name gpuctl_aws '*'feature="deploy"'*) without_deploy "$@" ;;
esac
