import COpenBLAS
import Glibc

/// Which of its kernels OpenBLAS chose for this processor.
public enum BLASKernels {
  /// The value of the environment variable `OPENBLAS_CORETYPE` that makes OpenBLAS use wider vectors than it chose by
  /// itself; nil when it chose well, or somebody has set the variable.
  ///
  /// OpenBLAS takes a processor that is younger than itself for an older one, or for one of 2004 ("Prescott"), which is three
  /// times slower. It looks at the variable only when it is loaded, so the process has to start again with it.
  static var betterCoreType: String? {
    guard getenv("OPENBLAS_CORETYPE") == nil, let chosen = openblas_get_corename() else { return nil }
    return coreType(betterThan: String(cString: chosen), vectorBytes: Int(cpu_kernel_vector_bytes()))
  }

  /// Starts the process again with them, where there are better kernels; call it before anything has been done. Commands that
  /// the process runs inherit the variable.
  public static func relaunchWithBetter() {
    guard let coreType = betterCoreType else { return }
    setenv("OPENBLAS_CORETYPE", coreType, 1)
    var arguments = CommandLine.arguments.map { strdup($0) } + [nil]
    execv("/proc/self/exe", &arguments)
    for argument in arguments { free(argument) }
  }

  /// - Parameter vectorBytes: the widest vectors of kernels that the processor can run.
  static func coreType(betterThan chosen: String, vectorBytes: Int) -> String? {
    let chosenBytes =
      switch chosen {
      case "SkylakeX", "Cooperlake", "SapphireRapids": 64
      case "Haswell", "Zen", "Excavator": 32
      default: 0
      }
    guard vectorBytes > chosenBytes else { return nil }
    return vectorBytes == 64 ? "SkylakeX" : "Haswell"
  }
}
