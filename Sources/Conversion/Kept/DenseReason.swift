/// Why a tensor of a conversion is stored as it is.
public enum DenseReason: String, Sendable, Hashable, CaseIterable {
  /// Its matrix was looked at, and no operator was worth its error at this budget.
  case better = "dense is the better choice at this budget"
  /// A glob of `selection.exclude` matches it.
  case excluded = "excluded by the recipe"
  /// No glob of `selection.include` matches it.
  case notIncluded = "not included by the recipe"
  /// A side is below `TensorSelection.minimumSide`.
  case smallSide = "a side below 64"
  /// It is a kernel of a convolution, and the recipe leaves those alone.
  case kernel = "a kernel of a convolution"
  /// It has fewer than two axes.
  case vector = "vectors and scalars"
  /// Its elements are no floating-point numbers that are converted.
  case notFloatingPoint = "not floating-point"
  /// It belongs to the training, not to the model.
  case trainingState = "training state"
  /// It belongs to a quantised weight.
  case quantization = "scales of quantised weights"
  /// It is a mask, a table or another buffer.
  case buffer = "masks and other buffers"
}
