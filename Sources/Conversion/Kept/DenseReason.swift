/// Why a tensor of a conversion is stored as it is.
public enum DenseReason: String, Sendable, Hashable, CaseIterable {
  /// Its matrix was looked at, and no operator was worth its error at this budget.
  case better = "dense is the better choice at this budget"
  case excluded = "excluded by the recipe"
  case notIncluded = "not included by the recipe"
  case smallSide = "a side below 64"
  case kernel = "a kernel of a convolution"
  case vector = "vectors and scalars"
  case notFloatingPoint = "not floating-point"
  case trainingState = "training state"
  case quantization = "scales of quantised weights"
  case buffer = "masks and other buffers"
}
