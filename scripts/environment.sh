# Sourced by the other scripts: where builds and downloads go, so that clean clones share them and the tree stays clean.

# Outside the checkout, and kept between clones; CARGO_TARGET_DIR overrides it.
cache=${GPUCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpuctl}
export GPUCTL_CACHE=$cache
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

# A fresh machine has `python3` or, on some, only `python`.
python=$(command -v python3 || command -v python) || {
  echo "error: Python 3 is needed to fetch models; install python3" >&2
  exit 1
}
command -v cargo >/dev/null || {
  echo "error: Rust is needed; see https://rustup.rs" >&2
  exit 1
}
