# What the jobs of tools/slurm have in common. A job sources the file 'submission' of its work folder first.
set -uo pipefail

# Waits for files that another node has written: a shared file system may show them late. Looking into the folder brings them.
await() {
  local file
  for file in "$@"; do
    for _ in $(seq 120); do
      [ ! -e "$file" ] || continue 2
      ls "$(dirname "$file")" >/dev/null 2>&1
      sleep 1
    done
    echo "tools/slurm: $file is not there after two minutes" >&2
    exit 1
  done
}

# Runs a command and ends the job where it fails. The signal USR1, a minute before the time of the job is over, ends the command,
# which leaves nothing half done, and queues the task again: three times at most.
run() {
  local child status late=
  "$@" &
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null' TERM
  trap 'late=1; kill -TERM "$child" 2>/dev/null' USR1
  while true; do
    wait "$child"
    status=$?
    # A signal ends the waiting, not the command.
    [ "$status" -gt 128 ] && kill -0 "$child" 2>/dev/null || break
  done
  trap - TERM USR1
  [ "$status" -ne 0 ] || return 0
  if [ -n "$late" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
    echo "tools/slurm: the time of the job is over; the task is queued again" >&2
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    sleep 60
  fi
  [ -z "$late" ] || echo "tools/slurm: the task needs more than --time, or smaller parts: submit it with more of them" >&2
  exit "$status"
}

# The statistics, for the stages that take them.
if [ -n "$STATISTICS" ]; then SHARED+=(--calibration "$STATISTICS"); fi

profile_file() { echo "$WORK/profiles/$1-of-$PARTS.json"; }
part_folder() { echo "$WORK/parts/$1-of-$PARTS.mpo"; }
statistics_part() { echo "$WORK/statistics-$1-of-$CALIBRATION_PARTS.safetensors"; }
