# What the answers to the plan's questions mean, and what is done before and after some steps.
# Sourced by build-and-run.sh.
# shellcheck shell=bash disable=SC2034,SC2154  # facts are read by name; see build-and-run.sh

answer() { cat "$work/out"; }

judge_docker() {
  [ "$code" = 0 ] || die no-docker
  note docker "$(answer)"
}

judge_kubectl() {
  found=$(version_of)
  if older "$found" 1.29; then die old-kubectl; fi
  note kubectl "$found"
}

judge_contexts() {
  if grep -qxF -- "$context" "$work/out"; then return 0; fi
  if [ "$context" = docker-desktop ]; then die no-kubernetes; fi
  found=$(answer | tr '\n' ' ')
  die unknown-context
}

judge_current_context() {
  found=$(answer)
  found=${found:-not set}
  [ "$found" = "$context" ] || die wrong-context
}

judge_kubernetes() {
  [ "$code" = 0 ] || die no-answer
  found=$(version_of)
  if older "$found" "$minimum"; then die old-kubernetes; fi
  note kubernetes "$found, context $context"
}

# Kubernetes writes 8022032Ki, 7834Mi, 8Gi, or bytes.
judge_memory() {
  [ "$code" = 0 ] || die no-answer
  found=$(answer | tr ' ' '\n' | awk '
    { unit = 1 }
    /Ki$/ { unit = 1024 } /Mi$/ { unit = 1024 ^ 2 } /Gi$/ { unit = 1024 ^ 3 }
    $1 * unit > most { most = $1 * unit }
    END { printf "%.1f", most / 1024 ^ 3 }')
  wanted=$memory
  if awk "BEGIN { exit !($found < $wanted) }"; then die low-memory; fi
  note memory "$found GiB on the largest node, $wanted are needed"
}

judge_ollama() {
  local model missing='' there
  there=$(tr -d ' \n' <"$work/out")
  if [ "$code" != 0 ]; then warn "$(words no-ollama)"; fi
  for model in $(models_at_ollama); do
    case $there in
      *"\"name\":\"$model\""* | *"\"name\":\"$model:latest\""*) ;;
      *) missing="$missing $model" ;;
    esac
  done
  if [ -z "$missing" ]; then
    note ollama "has the models of $overlay"
    return 0
  fi
  if [ "$code" = 0 ]; then warn "$(words missing-models)"; fi
  for model in $missing; do printf '    ollama pull %s\n' "$model"; done
}

judge_keda() {
  [ "$code" = 0 ] || fail keda kubectl get deployment keda-operator
  found=$(answer)
  found=${found##*:}
  case $found in
    '') flags="$flags no-keda" ;;
    "$keda") note keda "$keda is there" ;;
    *)
      if has upgrade && older "$found" "$keda"; then
        flags="$flags no-keda"
      else
        warn "$(words old-keda)"
      fi
      ;;
  esac
}

judge_workloads() {
  workloads=$(answer)
  [ "$code" = 0 ] && [ -n "$workloads" ] || fail workloads kubectl get deployment
}

judge_chat() {
  local text
  text=$(sed -nE 's/.*"content": *"(([^"\\]|\\.)*)".*/\1/p' "$work/out" |
    sed 's/\\n/ /g; s/\\"/"/g')
  if [ -z "$text" ]; then
    cat "$work/out" "$work/err" "$work/forward" >&2
    printf '\n' >&2
    die no-chat
  fi
  printf '%s\n' "$text" | fold -s -w 74 | sed 's/^/  /'
}

judge_doors() { [ "$code" != 0 ] || doors=doors; }

after_check() {
  has machine || return 0
  found=$(df -Pk "$repo" | awk 'NR == 2 { printf "%d", $4 / 1048576 }')
  wanted=$disk
  if [ "$found" -lt "$wanted" ]; then die low-disk; fi
  note disk "$found GiB free, $wanted are needed"
}

before_images() { mkdir -p .millrace; }

after_images() {
  has archive,cluster || return 0
  words import-first | sed 's/^/  /'
  printf '\n'
  confirm import-question || { words not-imported; printf '\n'; exit 1; }
}

# With a registry of the user's, the overlay is applied through one of ours that renames the images.
before_apply() {
  has registry || return 0
  mkdir -p "$kustomization"
  {
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n'
    printf 'resources:\n  - ../../../k8s/overlays/%s\nimages:\n' "$overlay"
    for image in $targets; do
      printf '  - name: millrace/%s\n    newName: %s/millrace/%s\n' "$image" "$registry" "$image"
    done
  } >"$kustomization/kustomization.yaml"
}

# The key goes into a file, because every user of this machine sees a command's words.
before_smoke() {
  (
    umask 077
    sed -n 's/^MILLRACE_API_KEY=\(.*\)$/header = "Authorization: Bearer \1"/p' \
      "$secrets/api-key.env" | tr -d '\r' >"$secrets/smoke.curl"
    printf 'header = "Content-Type: application/json"\n' >>"$secrets/smoke.curl"
  )
}

after_smoke() { end_smoke; }

end_smoke() {
  rm -f "$secrets/smoke.curl"
  if [ -n "$forward" ]; then
    kill "$forward" 2>/dev/null || true
    wait "$forward" 2>/dev/null || true
  fi
  forward=
}

after_urls() { words "urls-$doors" | sed 's/^/  /'; printf '\n'; }

before_down() {
  local question=remove-question
  if has keep; then question=keep-question; fi
  confirm "$question" || { words not-removed; printf '\n'; exit 1; }
}

after_down() {
  if has keep; then words kept; else words removed; fi
  printf '\n'
}

confirm() {
  local reply=''
  [ -z "$yes" ] || return 0
  printf '%s [y/N] ' "$(words "$1")"
  read -r reply || printf '\n'
  case $reply in y | Y | yes) ;; *) return 1 ;; esac
}

# What a failed command said, and what to do.
fail() {
  local name=$1 key=failed-$2
  shift
  tail -n 25 "$work/out" "$work/err" 2>/dev/null | sed '/^==>.*<==$/d; /^$/d' >&2
  case $name in
    write | check-overlay) die failed-secrets ;;
    build-manifests) die failed-manifests ;;
    rollout)
      workloads=$workload
      (perform hints) >&2
      die failed-rollout
      ;;
  esac
  die "$key" "$(quoted "$@")"
}

version_of() {
  sed -nE '/"gitVersion"/{s/.*"gitVersion": *"v([0-9]+\.[0-9]+\.?[0-9]*).*/\1/p;q;}' "$work/out"
}

# Whether a version is older than another: numbers with points between them.
older() {
  local -a left right
  local place
  IFS=. read -r -a left <<<"$1"
  IFS=. read -r -a right <<<"$2"
  for place in 0 1 2; do
    if [ "${left[place]:-0}" -lt "${right[place]:-0}" ]; then return 0; fi
    if [ "${left[place]:-0}" -gt "${right[place]:-0}" ]; then return 1; fi
  done
  return 1
}

# The overlay's models that an Ollama serves, by the engine's names.
models_at_ollama() {
  tr -d '\r' <"k8s/overlays/$overlay/models.yaml" | awk '
    function flush() { if (provider == "ollama") print name }
    /^models:/ { inside = 1; next }
    /^[a-z]/ { if (inside) flush(); inside = 0; provider = "" }
    inside && /^ *- name:/ { flush(); name = $3; provider = "" }
    inside && /^ *engine_model:/ { name = $2 }
    inside && /^ *provider:/ { provider = $2 }
    END { if (inside) flush() }'
}
