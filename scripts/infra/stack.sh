# The stack: checkov.

scene_checkov() {
  scripts/check-infra.sh --checkov
}
