#!/usr/bin/env bash
# Cargo's `rustdoc` during the tests: lints a library's documentation with what the doc tests link to, then runs the doc tests.
# `cargo doc` would compile every dependency once more for it.
set -euo pipefail

documentation=()
tests=0
skip=0
for argument in "$@"; do
  if [ "$skip" = 1 ]; then skip=0; continue; fi
  case $argument in
    --test) tests=1 ;;
    --test-args | --test-run-directory | --test-runtool | --test-runtool-arg | --no-run) skip=1 ;;
    --test-*=* ) ;;
    *) documentation+=("$argument") ;;
  esac
done
if [ "$tests" = 1 ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  rustdoc "${documentation[@]}" -D warnings --out-dir "$folder"
fi
rustdoc "$@"
