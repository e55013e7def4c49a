# Containers for the scenes: podman, buildah and runc, with storage of their own in the cache and settings that work without a systemd around.
# shellcheck disable=SC2154 # cache is of scripts/environment.sh

containers=$cache/containers
base_image=localhost/debian:bookworm-slim
# podman's defaults want limits that a container host may not set, and crun refuses machines with both versions of cgroups.
CONTAINERS_STORAGE_CONF=$containers/storage.conf CONTAINERS_CONF=$containers/containers.conf
export CONTAINERS_STORAGE_CONF CONTAINERS_CONF

# need_podman: installs what is missing, and makes the base image once. Skips the scene where that cannot be.
need_podman() {
  local tool
  for tool in podman buildah runc mmdebstrap iptables /usr/lib/podman/netavark; do
    command -v $tool >/dev/null || { install_podman; break; }
  done
  mkdir -p "$containers"
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/graph"\nrunroot = "%s/run"\n' "$containers" "$containers" >"$CONTAINERS_STORAGE_CONF"
  printf '%s\n' '[containers]' 'default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]' '[network]' 'network_backend = "netavark"' \
    '[engine]' 'cgroup_manager = "cgroupfs"' 'runtime = "runc"' 'events_logger = "file"' >"$CONTAINERS_CONF"
  podman image exists $base_image || make_base_image
  # What is made cannot be run everywhere: in a container without privileges, say.
  podman run --rm --network=none $base_image true || skip "podman cannot run a container here"
}

install_podman() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then skip "podman, buildah, runc, netavark and mmdebstrap are not installed"; fi
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  fetch "the list of Debian's packages" "${apt[@]}" update || skip "podman cannot be installed"
  fetch "podman" "${apt[@]}" install -y --no-install-recommends buildah podman runc netavark aardvark-dns fuse-overlayfs \
    mmdebstrap uidmap catatonit iptables iproute2 >/dev/null || skip "podman cannot be installed"
}

# Debian itself, from where this machine's apt takes its packages: no registry of images is asked.
make_base_image() {
  local sources=(/etc/apt/sources.list.d/debian.sources)
  [ -r "${sources[0]}" ] || sources=(/etc/apt/sources.list)
  fetch "Debian for the images" mmdebstrap --quiet --aptopt='Acquire::Retries "3"' --variant=minbase --include=ca-certificates bookworm \
    "$containers/base.tar" "${sources[@]}" || skip "mmdebstrap cannot make the base image here"
  podman import --quiet "$containers/base.tar" $base_image || skip "podman cannot keep an image here"
  rm "$containers/base.tar"
}

# build IMAGE FOLDER ARGUMENT…: without a runtime, a network for anything but Debian's packages, or an image that is not here.
build() {
  local image=$1 folder=$2
  shift 2
  fetch "what $image is built from" buildah build --quiet --layers --isolation=chroot --network=host --pull-never --format=docker --build-arg "BASE=$base_image" \
    --tag "$image" "$@" "$folder"
}

# remove CONTAINER…
remove() {
  podman rm --force --time 0 "$@" >/dev/null 2>&1 || true
}
