import Checkpoints
import Conversion
import Files
import Recipes
import TensorNetworks

/// One of the things that a report puts side by side: a checkpoint before or after its conversion, a plan, or a profile.
public struct ReportSubject: Sendable {
  enum Kind: String, Sendable {
    case checkpoint = "MPO checkpoint"
    case plan
    case profile
    case dense = "dense checkpoint"
  }

  let kind: Kind
  /// Where it is from.
  public let path: String
  /// What readers know it by.
  public var label: String
  var recipe: ConversionRecipe?
  /// What was done to it beside its conversion, in a sentence.
  var history: String?
  /// The files that it was made from, with what identifies their content.
  var sources: [String] = []
  var parametersBefore: Int
  var parametersAfter: Int
  var trainable: Int?
  var bytesBefore: Int?
  var bytesAfter: Int?
  /// Over the matrices in cores, in the Frobenius norm.
  var relativeError: Double?
  var tied = 0
  var dense: [DenseTensors] = []
  /// Every tensor of the model with its shape; empty where only the matrices are known.
  var tensors: [(name: String, shape: [Int])] = []
  var matrices: [MatrixFigures]

  var ratio: Double { Double(parametersAfter) / Double(max(1, parametersBefore)) }

  /// Whether errors are what a plan expects, and not what was measured.
  var isPredicted: Bool { kind == .plan }

  /// The root mean square of the errors in the metric; nil without one.
  var metricError: Double? {
    let errors = matrices.compactMap { $0.state == .cores ? $0.metricError : nil }
    guard !errors.isEmpty else { return nil }
    return (errors.reduce(0) { $0 + $1 * $1 } / Double(errors.count)).squareRoot()
  }

  init(
    kind: Kind, path: String, parametersBefore: Int, parametersAfter: Int, matrices: [MatrixFigures]
  ) {
    self.kind = kind
    self.path = path
    label = pathComponents(of: path).last ?? path
    self.parametersBefore = parametersBefore
    self.parametersAfter = parametersAfter
    self.matrices = matrices
  }
}

extension ReportSubject {
  /// - Throws: `ReportError.differentModels` when `other` is not of the same model.
  func requireSameModel(as other: ReportSubject) throws {
    func different(_ reason: String) -> ReportError {
      .differentModels(path: path, other: other.path, reason: reason)
    }
    if !tensors.isEmpty, !other.tensors.isEmpty {
      let shapes = Dictionary(
        other.tensors.map { (TensorName($0.name), $0.shape) },
        uniquingKeysWith: { first, _ in first })
      for (name, shape) in tensors {
        guard let found = shapes[TensorName(name)] else {
          throw different("the other has no tensor '\(escaped(name))'")
        }
        guard found == shape else {
          throw different(
            "its tensor '\(escaped(name))' is \(sizes(shape)), in the other it is \(sizes(found))")
        }
      }
      let own = Set(tensors.map { TensorName($0.name) })
      if let missing = other.tensors.first(where: { !own.contains(TensorName($0.name)) }) {
        throw different("it has no tensor '\(escaped(missing.name))'")
      }
      return
    }
    if other.tensors.isEmpty, !tensors.isEmpty { return try other.requireSameModel(as: self) }
    // Of a plan and a profile the matrices are known, and stacked ones each by itself.
    let known = Dictionary(
      other.matrices.map { (TensorName($0.name), $0.elements) }
        + other.tensors.map { (TensorName($0.name), $0.shape.reduce(1, *)) },
      uniquingKeysWith: { first, _ in first })
    for matrix in matrices {
      let stack = matrix.name.lastIndex(of: ".").map { String(matrix.name[..<$0]) } ?? matrix.name
      guard let elements = known[TensorName(matrix.name)] ?? known[TensorName(stack)] else {
        throw different("the other has no matrix '\(escaped(matrix.name))'")
      }
      let isStacked = known[TensorName(matrix.name)] == nil
      guard isStacked ? elements % matrix.elements == 0 : elements == matrix.elements else {
        throw different(
          "its matrix '\(escaped(matrix.name))' has \(grouped(matrix.elements)) numbers, in the other \(grouped(elements))"
        )
      }
    }
    // A dense checkpoint may have training state, which nothing else counts.
    guard kind == .dense || other.kind == .dense || parametersBefore == other.parametersBefore
    else {
      throw different(
        "it has \(grouped(parametersBefore)) parameters, the other \(grouped(other.parametersBefore))")
    }
  }

  /// The same with matrices that are stacked in one tensor of `other` put together.
  func stacked(like other: ReportSubject) -> ReportSubject {
    let names = Set(other.matrices.map { TensorName($0.name) })
    var result = self
    result.matrices = []
    var stacks: [TensorName: [MatrixFigures]] = [:]
    for matrix in matrices {
      let stack = matrix.name.lastIndex(of: ".").map { String(matrix.name[..<$0]) } ?? matrix.name
      if !names.contains(TensorName(matrix.name)), names.contains(TensorName(stack)) {
        stacks[TensorName(stack), default: []].append(matrix)
      } else {
        result.matrices.append(matrix)
      }
    }
    for (name, parts) in stacks.sorted(by: { $0.key < $1.key }) {
      result.matrices.append(MatrixFigures(parts, name.text))
    }
    return result
  }
}

extension MatrixFigures {
  /// Matrices that are stacked in one tensor.
  fileprivate init(_ parts: [MatrixFigures], _ name: String) {
    func joined(_ errors: [Double?]) -> Double? {
      let known = zip(errors, parts).compactMap { error, part in error.map { ($0, part.norm ?? 1) }
      }
      guard known.count == parts.count else { return nil }
      let total = known.reduce(0) { $0 + $1.1 * $1.1 }
      return total > 0
        ? (known.reduce(0) { $0 + $1.0 * $1.0 * $1.1 * $1.1 } / total).squareRoot() : 0
    }
    self.init(
      name: name, rows: parts.reduce(0) { $0 + $1.rows }, columns: parts[0].columns,
      state: parts.contains { $0.state == .cores } ? .cores : .dense,
      stored: parts.reduce(0) { $0 + $1.stored })
    relativeError = joined(parts.map { $0.state == .cores ? $0.relativeError : 0 })
    metricError = joined(parts.map { $0.state == .cores ? $0.metricError : 0 })
    chains = parts.flatMap(\.chains)
  }
}
