import Checkpoints
import Glibc
import Recipes
import Squeezing
import TensorNetworks

extension TensorSelection {
  /// Parses `GLOB=3,4,4,4,4x4,4,8,6,4`.
  public static func parseShape(_ text: String) throws -> ShapeRule {
    func invalid(_ reason: String) -> ConversionError {
      .badOption(option: "--shape", value: text, reason: reason)
    }
    guard let separator = text.lastIndex(of: "=") else {
      throw invalid("give it as GLOB=3,4,4,4,4x4,4,8,6,4: row factors x column factors")
    }
    let sides = text[text.index(after: separator)...].split(separator: "x", omittingEmptySubsequences: false)
    let factors = sides.map { $0.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) } }
    guard factors.count == 2, factors.joined().allSatisfy({ $0 != nil }) else {
      throw invalid("give it as GLOB=3,4,4,4,4x4,4,8,6,4: row factors x column factors")
    }
    do {
      let shape = try MPOShape(rowFactors: factors[0].compactMap(\.self), columnFactors: factors[1].compactMap(\.self))
      return ShapeRule(glob: String(text[..<separator]), shape: shape)
    } catch let error as MPOShapeError {
      throw invalid(error.description)
    }
  }

  /// The matrices of a checkpoint that are to be decomposed, in its order.
  /// - Throws: `ConversionError` for a glob that matches nothing and factors that do not fit.
  func matrices(of checkpoint: any DenseCheckpoint) throws -> [WeightMatrix] {
    let candidates = checkpoint.tensors.compactMap { tensor in
      WeightMatrix.sides(of: tensor, convolutions: convolutions).map { (tensor, $0) }
    }
    for (option, globs) in [("--include", include), ("--exclude", exclude), ("--shape", shapes.map(\.glob))] {
      for glob in globs where !candidates.contains(where: { matches(glob, $0.0.name) }) {
        throw ConversionError.globMatchesNothing(option: option, glob: glob, path: checkpoint.path)
      }
    }
    let matrices = try candidates.compactMap { tensor, sides -> WeightMatrix? in
      let isIncluded =
        include.isEmpty
        ? min(sides.rows, sides.columns) >= Self.minimumSide
        : include.contains { matches($0, tensor.name) }
      guard isIncluded, !exclude.contains(where: { matches($0, tensor.name) }) else { return nil }
      let shape = try self.shape(for: tensor, rows: sides.rows, columns: sides.columns)
      return WeightMatrix(tensor: tensor, rows: sides.rows, columns: sides.columns, shape: shape)
    }
    guard !matrices.isEmpty else { throw ConversionError.nothingToDecompose(path: checkpoint.path) }
    return matrices
  }

  private func shape(for tensor: TensorInfo, rows: Int, columns: Int) throws -> MPOShape {
    guard let shape = shapes.last(where: { matches($0.glob, tensor.name) })?.shape else {
      return .automatic(rows: rows, columns: columns, sites: sites)
    }
    guard Self.fits(shape, rows: rows, columns: columns) else {
      throw ConversionError.shapeDoesNotFit(
        tensor: tensor.name, rows: rows, columns: columns, shape: shape.description)
    }
    return shape
  }

  /// Whether a matrix has the sides of `shape`, or at most 1/16 less: the rest is padding.
  static func fits(_ shape: MPOShape, rows: Int, columns: Int) -> Bool {
    (rows...rows + rows / 16).contains(shape.rows) && (columns...columns + columns / 16).contains(shape.columns)
  }
}

/// Whether a shell glob matches a whole name; `*` matches dots and slashes too.
package func matches(_ glob: String, _ name: String) -> Bool { fnmatch(glob, name, 0) == 0 }

/// A tensor that can be decomposed, seen as a matrix.
package struct WeightMatrix: Sendable {
  package let tensor: TensorInfo
  package let rows: Int
  package let columns: Int
  package let shape: MPOShape

  /// The sides of the matrix that a tensor is; nil for what is not a floating-point matrix of at least 2 × 2.
  static func sides(of tensor: TensorInfo, convolutions: Bool = false) -> (rows: Int, columns: Int)? {
    guard tensor.dtype.isDecomposable else { return nil }
    let shape = tensor.shape
    let sides: (rows: Int, columns: Int)
    switch (shape.count, tensor.orientation) {
    case (2, _): sides = (shape[0], shape[1])
    case (4, .outputInput) where convolutions: sides = (shape[0], shape[1] * shape[2] * shape[3])
    case (4, .inputOutput) where convolutions: sides = (shape[0] * shape[1] * shape[2], shape[3])
    default: return nil
    }
    // The tables of index positions are 32 bits wide.
    guard min(sides.rows, sides.columns) >= 2, max(sides.rows, sides.columns) <= 1 << 29 else { return nil }
    return sides
  }
}

extension NetworkProfile {
  /// The indices of the layers that each glob ties together.
  /// - Throws: `ConversionError` for a glob that matches nothing and a layer that two globs match.
  public func ties(_ globs: [String], path: String) throws -> [[Int]] {
    var taken: [Int: String] = [:]
    return try globs.map { glob in
      let members = layers.indices.filter { matches(glob, layers[$0].name) }
      guard !members.isEmpty else {
        throw ConversionError.globMatchesNothing(option: "--tie", glob: glob, path: path)
      }
      for member in members {
        if let other = taken.updateValue(glob, forKey: member) {
          throw ConversionError.badOption(
            option: "--tie", value: glob, reason: "'\(other)' ties '\(layers[member].name)' already")
        }
      }
      return members
    }
  }
}
