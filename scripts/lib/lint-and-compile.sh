#!/usr/bin/env bash
# Cargo's compiler for the workspace's own crates during the tests: the linter, which compiles as well. Any warning is an error.
exec clippy-driver "$@" -D warnings
