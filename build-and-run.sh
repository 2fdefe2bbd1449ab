#!/usr/bin/env bash
# Builds Millrace and runs it on Kubernetes: build-and-run.ps1 for Linux, macOS.
#
#   ./build-and-run.sh              Docker Desktop's Kubernetes, this PC's Ollama
#   ./build-and-run.sh --overlay k3s-gpu --context NAME
#   ./build-and-run.sh --dry-run    shows every command and starts nothing
#
# A second run changes only what is different. The steps, in order:
#   check    what this machine and the cluster lack, and how to mend it
#   images   builds them, and pushes or saves them for nodes that do not see them
#   secrets  writes those that are missing, and checks the overlay
#   keda     installs KEDA unless it is there
#   apply    applies the overlay
#   wait     until everything is ready
#   smoke    asks a question
#   urls     where everything is
#
#   --overlay NAME    a folder of k8s/overlays; docker-desktop if left out
#   --context NAME    kubectl's name of the cluster, if not docker-desktop
#   --only STEP,STEP  these steps alone; what they need is checked first
#   --upgrade         builds, applies and restarts; renews a KEDA that is too old
#   --registry PREFIX pushes the images there, and the nodes pull them from it
#   --down            removes Millrace from the cluster, after a question
#   --keep-data       with --down: the volumes stay
#   --status          what runs
#   --logs COMPONENT  what a component says: master, worker, celery-worker,
#                     celery-beat, rabbitmq, postgres, open-webui, n8n,
#                     prometheus, grafana
#   --dry-run         the exact commands, and nothing is started
#   --yes             answers questions with yes
#   --one-machine [COMMAND]
#                     without Docker: `millrace up`, or another millrace command
set -euo pipefail
shopt -u patsub_replacement 2>/dev/null || true # bash 5.2 would read & in what is put in

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here"
repo=$here
steps='check images secrets keda apply wait smoke urls'
overlay=docker-desktop context='' only='' registry='' component='' dry_run='' yes='' flags=''
action=run untouched=yes code=0 child='' forward='' doors=forward label='' step='' workloads=''
image='' images='' workload='' found='' wanted='' port=28800
red='' yellow='' bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then
  red=$'\033[31m' yellow=$'\033[33m' bold=$'\033[1m' plain=$'\033[0m'
fi

# shellcheck source=scripts/cluster/plan.sh
. "$here/scripts/cluster/plan.sh"
# shellcheck source=scripts/cluster/judge.sh
. "$here/scripts/cluster/judge.sh"

one_machine() {
  scripts/bootstrap local
  [ $# -gt 0 ] || set -- up
  exec .venv/bin/millrace "$@"
}

options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --overlay | --context | --only | --registry | --logs)
        found=$1
        [ -n "${2-}" ] || die no-option
        case $1 in
          --overlay) overlay=$2 ;;
          --context) context=$2 ;;
          --only) only=$2 ;;
          --registry) registry=${2%/} ;;
          --logs) action=logs component=$2 ;;
        esac
        shift
        ;;
      --upgrade) flags="$flags upgrade" ;;
      --down) action=down ;;
      --keep-data) flags="$flags keep" ;;
      --status) action=status ;;
      --dry-run) dry_run=yes ;;
      --yes) yes=yes ;;
      --one-machine) shift; one_machine "$@" ;;
      --help | -h) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$here/build-and-run.sh"; exit 0 ;;
      *) found=$1; die no-option ;;
    esac
    shift
  done
}

# What images/versions.env and the table of overlays say.
read_tables() {
  local line row=''
  local -a fields
  while IFS='=' read -r name value; do
    value=${value%$'\r'}
    case $name in
      MILLRACE_TAG) tag=$value ;;
      KEDA_VERSION) keda=$value ;;
      KUBERNETES_MINIMUM) minimum=$value ;;
    esac
  done <images/versions.env
  while IFS= read -r line; do
    read -r -a fields <<<"${line%$'\r'}"
    case ${fields[0]-} in "$overlay" | '*') row=${row:-${fields[*]:1}} ;; esac
  done <"$cluster/overlays"
  read -r memory disk platform ways targets <<<"$row"
  targets=${targets//,/ }
}

settle() {
  if [ ! -f "k8s/overlays/$overlay/kustomization.yaml" ]; then
    found=$(cd k8s/overlays && echo */)
    found=${found//\//}
    die no-overlay
  fi
  read_tables
  secrets=k8s/overlays/$overlay/secrets
  kustomization=k8s/overlays/$overlay
  archive=.millrace/millrace-$tag-$overlay.tar
  user=$(id -u):$(id -g)
  if [ "$platform" = - ]; then flags="$flags native"; else flags="$flags foreign"; fi
  if [ -n "$registry" ]; then
    flags="$flags registry"
    ways=${ways//archive/}
    kustomization=.millrace/cluster/$overlay
  fi
  flags="$flags ${ways//,/ }"
  if has nodes; then doors=nodes; fi
}

# Which steps, and with that what has to be checked.
select_steps() {
  local chosen=''
  if [ "$action" = down ]; then steps='check down'; fi
  if [ -n "$only" ]; then
    for found in ${only//,/ }; do
      case " $steps " in *" $found "*) ;; *) die unknown-step ;; esac
    done
    for step in $steps; do
      case ",$only," in *",$step,"*) chosen="$chosen $step" ;; esac
    done
    steps=$chosen
  fi
  case " $steps " in *" check "*) if [ "$action" = run ]; then flags="$flags machine"; fi ;; esac
  for step in $steps; do
    case $step in
      images | secrets) flags="$flags docker" ;;
      keda | apply | wait | smoke | down) flags="$flags cluster" ;;
    esac
  done
  if has docker || has cluster; then steps="check ${steps#*check}"; fi
}

# The cluster that is meant; kubectl's current one is never taken unseen.
settle_context() {
  if [ -n "$context" ]; then return 0; fi
  if [ "$overlay" = docker-desktop ]; then
    context=docker-desktop
    if has cluster; then flags="$flags chosen"; fi
  elif [ -n "$dry_run" ]; then
    context=CONTEXT
  elif has cluster || [ "$action" != run ]; then
    die which-context
  fi
}

# Ends what still runs, whatever the way out.
clean_up() {
  if [ -n "$child" ]; then kill "$child" 2>/dev/null || true; fi
  if [ -n "$forward" ]; then end_smoke; fi
  rm -rf "$work"
}

main() {
  options "$@"
  settle
  if ! has keep; then flags="$flags drop"; fi
  if [ -n "$dry_run" ]; then flags="$flags no-keda"; fi
  work=$(mktemp -d)
  trap clean_up EXIT
  trap 'echo; exit 130' INT TERM
  case $action in
    run | down) select_steps ;;
    *) steps=$action untouched='' ;;
  esac
  settle_context
  printf 'Millrace %s, overlay %s\n' "$tag" "$overlay"
  for step in $steps; do perform "$step"; done
}

main "$@"
