import COpenBLAS

/// How many threads one BLAS call uses. Matrices are processed in parallel, so each call gets one.
public enum BLASThreads {
  /// Process-wide; call it before the first computation.
  public static func use(_ count: Int) {
    openblas_set_num_threads(blasInt(count))
  }
}
