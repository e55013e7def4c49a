# Sourced.

# What a script ends with when a source of downloads is not reached (EX_TEMPFAIL): scripts/test-infra.sh skips a scene that ends so.
unreachable=75
fetch_tries_max=3
# How pip, apt, cargo, mmdebstrap and buildah say it.
unreachable_words='from versions: none|could not resolve|failure (in name resolution|resolving)|failed to (resolve|fetch|establish)|unable to (connect|locate package|fetch)'
unreachable_words+='|connection (refused|reset|timed out|broken|failed)|network is unreachable|no route to host|timed out|retries exceeded|spurious network'
unreachable_words+='|(http error|status code|error:?) *(429|5[0-9][0-9])|incompleteread|ssl(error|:)'

# fetch WHAT COMMAND…: the command; again, and again, where it fails because a source is not reached. Then the script ends.
fetch() {
  local what=$1 log code try
  shift
  log=$(mktemp)
  for ((try = 1; ; try++)); do
    code=0
    "$@" 2>"$log" || code=$?
    cat "$log" >&2
    if [ $code = 0 ] || ! grep -qiE "$unreachable_words" "$log"; then break; fi
    if [ $try = $fetch_tries_max ]; then
      rm "$log"
      echo "$what cannot be fetched: a source is not reached" >&2
      exit $unreachable
    fi
    sleep $((try * 5))
  done
  rm "$log"
  return $code
}
