# shellcheck shell=sh
# For the scripts that start ranks, in a build with sanitizers: what they find goes to files
# $work/sanitizer.PID, whoever has eaten the process's words and status. Sourced with srcdir and work
# set; without sanitizers it changes nothing.
#
# Crashes of kernels are provoked, so they stay what they are. MPI's own leaks are forgiven:
# tests/support/mpi_leaks.supp.
sanitizer_options="log_path=$work/sanitizer:fast_unwind_on_malloc=0"
sanitizer_options="$sanitizer_options:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0"
export ASAN_OPTIONS="$sanitizer_options${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="$sanitizer_options:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
export LSAN_OPTIONS="suppressions=$srcdir/tests/support/mpi_leaks.supp:print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"

# For tests that have no meaning in such a build.
sanitized=0
! grep -q '^#define TRM_SANITIZED' "${builddir:-.}/config.h" || sanitized=1

# sanitizers_found: shows what they have found, if anything.
sanitizers_found() {
    set -- "$work"/sanitizer.*
    [ -e "$1" ] || return 1
    head -n 60 "$@"
}
