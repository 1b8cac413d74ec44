import COpenBLAS
import Glibc

/// Which of its kernels OpenBLAS chose for this processor.
public enum BLASKernels {
  /// The value of the environment variable `OPENBLAS_CORETYPE` that makes OpenBLAS use wider vectors than it chose by
  /// itself; nil when it chose well, or somebody has set the variable.
  ///
  /// OpenBLAS takes a processor that is younger than itself for an older one. It looks at the variable only when it is
  /// loaded, so the process has to start again with it.
  public static var betterCoreType: String? {
    guard getenv("OPENBLAS_CORETYPE") == nil, cpu_supports_skylakex_kernels() != 0,
      let chosen = openblas_get_corename()
    else { return nil }
    return ["Haswell", "Zen", "Excavator", "Sandybridge"].contains(String(cString: chosen)) ? "SkylakeX" : nil
  }
}
