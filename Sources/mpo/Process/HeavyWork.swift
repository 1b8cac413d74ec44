import Files
import LinearAlgebra

/// What a command does first that computes with whole networks.
enum HeavyWork {
  static func prepare() {
    BLASKernels.relaunchWithBetter()
    // Giving memory back and taking it anew for every matrix costs up to a tenth of the time.
    Posix.keepFreedMemory()
  }
}
