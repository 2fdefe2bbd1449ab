# Reads plan, words and overlays, and starts what the plan says. Sourced by build-and-run.sh.
# shellcheck shell=bash disable=SC2034,SC2154  # facts are read by name; see build-and-run.sh

cluster=$here/scripts/cluster
facts='tag overlay context repo user keda registry archive image images workload kustomization
  secrets port minimum found wanted platform component steps -'

# Puts facts into the braces of a text; the answer is in $filled, a subshell would cost a process.
fill() {
  local fact value
  filled=$1
  for fact in $facts; do
    case $filled in *"{$fact}"*) ;; *) continue ;; esac
    if [ "$fact" = - ]; then value=-- ; else value=${!fact}; fi
    filled=${filled//"{$fact}"/$value}
  done
}

# The text of a name in words, filled in, without its indentation.
words() {
  local line text='' found_name=''
  while IFS= read -r line; do
    line=${line%$'\r'}
    case $line in
      "  "*) [ -z "$found_name" ] || text=$text${line#  }$'\n' ;;
      "$1") found_name=yes ;;
      *) [ -z "$found_name" ] || break ;;
    esac
  done <"$cluster/words"
  fill "$text"
  printf '%s' "$filled"
}

# Ends the run with what is wrong and what to do about it.
die() {
  local text
  text=$(words "$1")
  {
    printf '%serror:%s %s\n' "$red" "$plain" "${text%%$'\n'*}"
    case $text in *$'\n'*) printf '%s\n' "${text#*$'\n'}" | sed 's/^/  /' ;; esac
    [ -z "${2-}" ] || printf '    %s\n' "$2"
    [ -z "$untouched" ] || printf '  %s\n' "$(words nothing-applied)"
  } >&2
  exit 1
}

warn() {
  printf '  %swarning:%s %s\n' "$yellow" "$plain" "${1%%$'\n'*}"
  case $1 in *$'\n'*) printf '%s\n' "${1#*$'\n'}" | sed 's/^/  /' ;; esac
}

note() { printf '  %-24s %s\n' "$1" "$2"; }

# A command as it can be pasted into a shell.
quoted() {
  local word text='' inside="'\\''"
  for word in "$@"; do
    case $word in
      *[!A-Za-z0-9_./:=+-]*) word="'"${word//\'/$inside}"'" ;;
    esac
    text="$text $word"
  done
  printf '%s' "${text# }"
}

# Waits for a command in the background and shows meanwhile what it said last.
follow() {
  local started=$SECONDS said
  [ -t 1 ] || return 0
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    said=$(tail -qn 1 "$work/out" "$work/err" 2>/dev/null | tr -d '\r\033' | tail -n 1)
    printf '\r\033[K  %-24s %4d s  %.44s' "$label" $((SECONDS - started)) "$said"
  done
  printf '\r\033[K'
}

# The one place where a program is started: `call HOW WORD…`, see plan. What it writes is in
# $work/out and $work/err, its exit code in $code.
call() {
  local how=$1
  shift
  code=0
  if [ -n "$dry_run" ]; then
    printf '  %s\n' "$(quoted "$@")"
    return
  fi
  command -v "$1" >/dev/null || die "no-$1-program"
  case "$how $1 ${2-}" in "run kubectl --context") untouched= ;; esac
  case $how in
    show) "$@" || code=$? ;;
    start)
      "$@" >"$work/forward" 2>&1 </dev/null &
      forward=$!
      ;;
    *)
      "$@" >"$work/out" 2>"$work/err" </dev/null &
      child=$!
      follow
      wait "$child" || code=$?
      child=
      ;;
  esac
}

# What a command of the plan came to: a judge's view, or success and the time that it took.
conclude() {
  local name=$1 how=$2 took=$3
  shift 3
  case $how in
    ask) "judge_${name//-/_}" ;;
    run)
      if [ "$code" != 0 ]; then fail "$name" "$@"; fi
      note "$label" "$(printf '%4d s' "$took")"
      ;;
    show) if [ "$code" != 0 ] && [ "$step" != hints ]; then fail "$name" "$@"; fi ;;
  esac
}

# Whether all these flags are set.
has() {
  local flag
  for flag in ${1//,/ }; do
    case " $flags " in *" $flag "*) ;; *) return 1 ;; esac
  done
}

# One command, of words with facts in them.
command_of() {
  local name=$1 how=$2 word started=$SECONDS
  local -a argv=()
  shift 2
  label=${name//-/ }
  for word in "$@"; do
    case $word in
      '{images}') for image in $targets; do argv+=("millrace/$image:$tag"); done ;;
      *)
        fill "$word"
        argv+=("$filled")
        case $word in
          *'{image}'*) label="${name//-/ } $image" ;;
          *'{workload}'*) label=${workload#*/} ;;
        esac
        ;;
    esac
  done
  call "$how" "${argv[@]}"
  [ -n "$dry_run" ] || conclude "$name" "$how" $((SECONDS - started)) "${argv[@]}"
}

# A line of the plan: not at all, once, or for each image or workload.
planned() {
  local name=$1 when=$2 how=$3
  shift 3
  if [ "$when" != - ]; then
    has "$when" || return 0
    [ -z "$dry_run" ] || words "when-$when" | sed 's/^/  # /'
  fi
  case " $* " in
    *'{image}'*) for image in $targets; do command_of "$name" "$how" "$@"; done ;;
    *' {workload} '*)
      for workload in ${workloads:-WORKLOAD}; do command_of "$name" "$how" "$@"; done
      ;;
    *) command_of "$name" "$how" "$@" ;;
  esac
}

# All lines of a step, and what build-and-run.sh does before and after it.
perform() {
  local line
  local -a fields lines=()
  step=$1
  while IFS= read -r line; do lines+=("${line%$'\r'}"); done <"$cluster/plan"
  case $step in hints | status | logs) ;; *) printf '%s%s%s\n' "$bold" "$step" "$plain" ;; esac
  aside before
  for line in "${lines[@]}"; do
    read -r -a fields <<<"$line"
    if [ "${fields[0]-}" = "$step" ]; then planned "${fields[@]:1}"; fi
  done
  aside after
}

aside() {
  if [ -z "$dry_run" ] && declare -F "$1_$step" >/dev/null; then "$1_$step"; fi
}
