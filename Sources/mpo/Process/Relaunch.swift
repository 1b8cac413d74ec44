import Glibc
import LinearAlgebra

/// Starting the process again where OpenBLAS can do better than it chose to.
enum Relaunch {
  /// Call it before anything has been done; returns when there is nothing to gain or it can't be had.
  static func withBetterKernels() {
    guard let coreType = BLASKernels.betterCoreType else { return }
    setenv("OPENBLAS_CORETYPE", coreType, 1)
    var arguments = CommandLine.arguments.map { strdup($0) } + [nil]
    execv("/proc/self/exe", &arguments)
    for argument in arguments { free(argument) }
  }
}
