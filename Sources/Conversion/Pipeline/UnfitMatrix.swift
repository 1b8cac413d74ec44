import Checkpoints
import MPOCheckpoints
import Recipes
import TensorNetworks

/// Why a matrix can't be made of cores: what comes back would not be what it was.
struct UnfitMatrix: Error {
  /// What the matrix has, as the end of a sentence.
  let reason: String

  /// `‖W‖_F` of a matrix that can be decomposed.
  ///
  /// - Parameter dtype: of the tensor, which elements are rounded to when it is restored.
  /// - Throws: `UnfitMatrix` for one that can't, with these cores.
  static func checkedNorm<Scalar: CheckpointScalar>(
    of view: MatrixView<Scalar>, _ dtype: DType, _ recipe: ConversionRecipe
  ) throws -> Double {
    let norm = view.norm
    guard norm.isFinite, norm < Double(Scalar.greatestFiniteMagnitude) / 1e4 else {
      throw UnfitMatrix(reason: "NaN, infinite or huge elements")
    }
    if norm == 0 { return 0 }
    // No element is above the norm. An approximation may be larger than the matrix somewhere.
    if let largest = dtype.greatestFinite, norm >= largest / 8,
      Double(Scalar.largestMagnitude(view.elements)) >= largest / 8
    {
      throw UnfitMatrix(reason: "elements so near the largest \(dtype.rawValue) number that rounding may pass it")
    }
    let cores = recipe.dtype ?? (recipe.budget == .lossless && dtype.bitWidth < 32 ? .f32 : dtype)
    if let largest = cores.greatestFinite, norm > largest / 8 {
      throw UnfitMatrix(reason: "elements too large for \(cores.rawValue) cores")
    }
    let count = Double(view.elements.count)
    if cores == .f16, norm / count.squareRoot() < 0x1p-17 {
      throw UnfitMatrix(reason: "elements too small for \(cores.rawValue) cores")
    }
    let isInHalf = !recipe.hasIntegers || (0x1p-15...0x1p15).contains(norm / count.squareRoot())
    let isInSingle = recipe.central == nil || (1e-30...1e30).contains(norm)
    if !isInHalf || !isInSingle {
      throw UnfitMatrix(reason: "elements too \(norm < 1 ? "small" : "large") for the scales of integers")
    }
    return norm
  }
}

extension ConversionRecipe {
  /// Whether cores may become integers with scales in half precision.
  fileprivate var hasIntegers: Bool {
    budget?.isOfBytes == true
      || encodings.contains { if case .integers = $0.encoding { true } else { false } }
  }
}

extension DType {
  /// The largest finite number of the narrow floating-point types; nil for others, whose range is checked elsewhere.
  fileprivate var greatestFinite: Double? {
    switch self {
    case .f16: 65504
    case .bf16, .f32: Double(Float.greatestFiniteMagnitude)
    default: nil
    }
  }
}
