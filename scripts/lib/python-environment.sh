# Sourced, after scripts/environment.sh.

# shellcheck source=scripts/lib/fetch.sh
. scripts/lib/fetch.sh

# python_environment FOLDER PACKAGE... : a virtual environment with these packages, made anew when the list changes. Tools have one each:
# beside each other pip picks older versions of both.
python_environment() {
  local folder=$1 packages=${*:2}
  if [ "$(cat "$folder/packages" 2>/dev/null)" = "$packages" ]; then return; fi
  echo "installing $packages"
  rm -rf "$folder"
  "$python" -m venv "$folder"
  fetch "$packages" "$folder/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
  echo "$packages" >"$folder/packages"
}

# The real clients of the HTTP API, in $cache/clients.
clients_environment() {
  python_environment "$cache/clients" openai==3.57.0 httpx==0.28.1
}
