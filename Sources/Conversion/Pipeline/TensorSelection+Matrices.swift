import Checkpoints
import Files
import Glibc
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks

extension TensorSelection {
  /// Parses `GLOB=3,4,4,4,4x4,4,8,6,4`.
  /// - Throws: `ConversionError.badMember` for another text.
  public static func parseShape(_ text: String) throws -> ShapeRule {
    func invalid(_ reason: String) -> ConversionError {
      .badMember(member: "selection.shapes", value: text, reason: reason)
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
      guard !shape.isDeep else { throw MPOShapeError.emptySite(index: 1) }
      return ShapeRule(glob: String(text[..<separator]), shape: shape)
    } catch let error as MPOShapeError {
      throw invalid(error.description)
    }
  }

  /// The matrices of a checkpoint that are to be decomposed, in its order; stacked ones each by itself.
  ///
  /// - Parameter kept: what is no weight; found in the checkpoint where it is not known yet.
  /// - Throws: `ConversionError` for a glob that matches nothing and factors that do not fit.
  func matrices(of checkpoint: any DenseCheckpoint, kept: KeptTensors? = nil) throws -> [WeightMatrix] {
    let configuration = ModelConfiguration(of: checkpoint)
    let kept = try kept ?? KeptTensors(of: checkpoint, configuration, include: include)
    let candidates = checkpoint.tensors.compactMap { tensor in
      kept.reason(for: tensor) == nil ? sides(of: tensor, configuration).map { (tensor, $0) } : nil
    }
    let members = [
      ("selection.include", include), ("selection.exclude", exclude), ("selection.shapes", shapes.map(\.glob)),
    ]
    for (member, globs) in members {
      for glob in globs where !candidates.contains(where: { matches(glob, $0.0.name) }) {
        if let (tensor, reason) = checkpoint.tensors.lazy.compactMap({ tensor in
          matches(glob, tensor.name) ? kept.reason(for: tensor).map { (tensor, $0) } : nil
        }).first {
          // It is left out already.
          if member == "selection.exclude" { continue }
          throw ConversionError.badMember(
            member: member, value: glob,
            reason: "it matches only tensors that no glob selects: '\(escaped(tensor.name))' (\(reason.rawValue)); "
              + "to decompose one, give selection.include its whole name")
        }
        throw ConversionError.globMatchesNothing(member: member, glob: glob, path: checkpoint.path)
      }
    }
    let matrices = try candidates.flatMap { tensor, sides -> [WeightMatrix] in
      guard selects(tensor, rows: sides.rows, columns: sides.columns) else { return [] }
      let shape = try self.shape(for: tensor, rows: sides.rows, columns: sides.columns)
      guard let experts = sides.experts else {
        return [WeightMatrix(tensor: tensor, rows: sides.rows, columns: sides.columns, shape: shape)]
      }
      if WeightMatrix.isAmbiguous(tensor, in: checkpoint) { return [] }
      return (0..<experts).map {
        WeightMatrix(
          tensor: tensor, expert: $0, orientation: configuration.expertOrientation, rows: sides.rows,
          columns: sides.columns, shape: shape)
      }
    }
    guard !matrices.isEmpty else {
      throw ConversionError.nothingToDecompose(path: checkpoint.path, dense: largestDenseTensors(of: checkpoint))
    }
    return matrices
  }

  /// How many matrices of a checkpoint are to be decomposed; 0 where the selection does not fit it.
  public func matrixCount(in checkpoint: any DenseCheckpoint) -> Int { (try? matrices(of: checkpoint).count) ?? 0 }

  /// The sides of the matrix that a tensor is, or of each of the matrices that are stacked in it; nil for what can't be
  /// decomposed.
  func sides(
    of tensor: TensorInfo, _ configuration: ModelConfiguration
  ) -> (rows: Int, columns: Int, experts: Int?)? {
    let isStack =
      tensor.shape.count == 3 && (experts ?? (configuration.expertCount(of: tensor) != nil))
    let sides =
      isStack ? WeightMatrix.stackedSides(of: tensor) : WeightMatrix.sides(of: tensor, convolutions: convolutions)
    return sides.map { ($0.rows, $0.columns, isStack ? tensor.shape[0] : nil) }
  }

  /// Whether a matrix of these sides is to be decomposed.
  func selects(_ tensor: TensorInfo, rows: Int, columns: Int) -> Bool {
    let isIncluded =
      include.isEmpty ? min(rows, columns) >= Self.minimumSide : include.contains { matches($0, tensor.name) }
    return isIncluded && !exclude.contains { matches($0, tensor.name) }
  }

  /// The largest tensors of a checkpoint that are not to be decomposed, and why, as the end of a sentence; nil where all are.
  ///
  /// - Parameter profiled: the names of the matrices that can be decomposed; nil where no profile was made yet.
  func largestDenseTensors(of checkpoint: any DenseCheckpoint, profiled: Set<TensorName>? = nil) -> String? {
    let configuration = ModelConfiguration(of: checkpoint)
    let kept = try? KeptTensors(of: checkpoint, configuration, include: include)
    func reason(_ tensor: TensorInfo) -> String? {
      guard tensor.dtype.isDecomposable else { return tensor.dtype.rawValue }
      if let reason = kept?.reason(for: tensor) {
        return reason == .trainingState
          ? nil : "\(reason.rawValue); give selection.include its whole name to decompose it"
      }
      guard let sides = sides(of: tensor, configuration) else {
        switch tensor.shape.count {
        case 3 where WeightMatrix.stackedSides(of: tensor) != nil:
          return "of rank 3; add selection.convolutions for a kernel, selection.experts for a stack of matrices"
        case 3... where !convolutions:
          return "a kernel of rank \(tensor.shape.count); add selection.convolutions to decompose it"
        default: return "not a matrix"
        }
      }
      if selects(tensor, rows: sides.rows, columns: sides.columns) {
        let isLeftOut = profiled.map {
          !$0.contains(tensor.key) && !$0.contains(TensorName(WeightMatrix.name(ofExpert: 0, in: tensor)))
        }
        return isLeftOut == true ? "with elements or a size that cores can't represent" : nil
      }
      if exclude.contains(where: { matches($0, tensor.name) }) { return "excluded" }
      return include.isEmpty
        ? "a side below \(Self.minimumSide); give it to selection.include to decompose it" : "not included"
    }
    let dense = checkpoint.tensors.compactMap { tensor in reason(tensor).map { (tensor, $0) } }
      .sorted { $0.0.elementCount > $1.0.elementCount }
    guard !dense.isEmpty else { return nil }
    return dense.prefix(3).map { "'\(escaped($0.0.name))' (\($0.0.elementCount) numbers, \($0.1))" }
      .joined(separator: ", ") + (dense.count > 3 ? " and \(dense.count - 3) more" : "")
  }

  /// What the matrices that are to be decomposed had and have in a converted checkpoint: numbers of all but tied ones, cores
  /// that several share once.
  ///
  /// - Parameters:
  ///   - contents: what was converted.
  ///   - configuration: of the source, whose `config.json` the checkpoint has.
  public func parameters(
    in contents: CheckpointContents, _ configuration: ModelConfiguration
  ) -> (before: Int, stored: Int) {
    var result = (before: 0, stored: 0)
    let kept = KeptTensors(contents.tensors.map(\.info), configuration, include: include)
    var seen: Set<TensorName> = []
    for record in contents.tensors where kept.reason(for: record.info) == nil {
      let isSelected =
        switch record.storage {
        case .tied: false
        case .blocks: true
        case .dense:
          sides(of: record.info, configuration).map { selects(record.info, rows: $0.rows, columns: $0.columns) }
            ?? false
        }
      guard isSelected else { continue }
      result.before += record.info.elementCount
      result.stored +=
        record.array?.valueCount
        ?? contents.namedCores(of: record).filter { seen.insert(TensorName($0.name)).inserted }
        .reduce(0) { $0 + $1.valueCount }
    }
    return result
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

/// A tensor that can be decomposed, seen as a matrix, or one of the matrices that are stacked in a tensor.
package struct WeightMatrix: Sendable {
  package let tensor: TensorInfo
  /// Which of the matrices `[I, J]` of a tensor `[E, I, J]` it is; nil for the whole of a tensor.
  package let expert: Int?
  package let rows: Int
  package let columns: Int
  package let shape: MPOShape
  private let orientation: TensorInfo.Orientation

  init(
    tensor: TensorInfo, expert: Int? = nil, orientation: TensorInfo.Orientation = .outputInput, rows: Int,
    columns: Int, shape: MPOShape
  ) {
    self.tensor = tensor
    self.expert = expert
    self.orientation = orientation
    self.rows = rows
    self.columns = columns
    self.shape = shape
  }

  /// That of the tensor, with the number of the expert behind it.
  package var name: String { expert.map { Self.name(ofExpert: $0, in: tensor) } ?? tensor.name }

  static func name(ofExpert expert: Int, in tensor: TensorInfo) -> String { "\(tensor.name).\(expert)" }

  /// The matrix as if it were a tensor by itself.
  var info: TensorInfo {
    expert == nil
      ? tensor : TensorInfo(name: name, dtype: tensor.dtype, shape: [rows, columns], orientation: orientation)
  }

  /// Whether experts of a tensor would have names that other tensors have.
  static func isAmbiguous(_ tensor: TensorInfo, in checkpoint: any DenseCheckpoint) -> Bool {
    (0..<tensor.shape[0]).contains { checkpoint.tensor(named: name(ofExpert: $0, in: tensor)) != nil }
  }

  /// The sides of each of the matrices that are stacked in a tensor; nil for what is no such tensor.
  static func stackedSides(of tensor: TensorInfo) -> (rows: Int, columns: Int)? {
    guard tensor.shape.count == 3, tensor.shape[0] > 0, tensor.elementCount > 0 else { return nil }
    return sides(of: TensorInfo(name: tensor.name, dtype: tensor.dtype, shape: Array(tensor.shape.dropFirst())))
  }

  /// The sides of the matrix that a tensor is; nil for what is not a floating-point matrix of at least 2 × 2.
  static func sides(of tensor: TensorInfo, convolutions: Bool = false) -> (rows: Int, columns: Int)? {
    guard tensor.dtype.isDecomposable else { return nil }
    let shape = tensor.shape
    let sides: (rows: Int, columns: Int)
    switch (shape.count, tensor.orientation) {
    case (2, _): sides = (shape[0], shape[1])
    case (3..., _) where tensor.elementCount == 0: return nil
    case (3, _) where attentionSides(of: tensor) != nil: sides = attentionSides(of: tensor) ?? (0, 0)
    case (3..., _) where convolutions: sides = kernelSides(shape, tensor.orientation)
    default: return nil
    }
    // The tables of index positions are 32 bits wide.
    guard min(sides.rows, sides.columns) >= 2, max(sides.rows, sides.columns) <= 1 << 29 else { return nil }
    return sides
  }
}

extension WeightMatrix {
  /// The sides of the matrix that a convolution kernel is, of whatever rank: as PyTorch lays kernels out, output features x
  /// the rest; as Keras does, divided between the axes where the sides are nearest to each other. So are kernels of which
  /// a side would be 1.
  private static func kernelSides(
    _ shape: [Int], _ orientation: TensorInfo.Orientation
  ) -> (rows: Int, columns: Int) {
    let sides = split(shape, at: 1)
    if orientation == .outputInput, min(sides.rows, sides.columns) >= 2 { return sides }
    // Of equal splits, the one that leaves the output features alone.
    return (1..<shape.count).map { split(shape, at: $0) }.reversed()
      .max { min($0.rows, $0.columns) < min($1.rows, $1.columns) } ?? sides
  }

  /// The sides of the matrix that a kernel of an attention layer is, as Keras and Flax lay it out: `[input, heads, size]` of
  /// queries, keys and values, `[heads, size, output]` of what follows the heads; nil for other tensors.
  private static func attentionSides(of tensor: TensorInfo) -> (rows: Int, columns: Int)? {
    // `query/kernel`, `_query_dense/vars/0`, `query/query/kernel:0`
    let words = tensor.name.utf8.split { KeptTensors.isSeparator($0) || $0 == UInt8(ascii: ":") }
      .map { String(decoding: $0.drop { $0 == UInt8(ascii: "_") }, as: UTF8.self).lowercased() }
      .filter { Int($0) == nil && $0 != "vars" }
    let isKernel = words.last == "kernel"
    guard isKernel || tensor.orientation == .inputOutput,
      let layer = isKernel ? words.dropLast().last : words.last
    else { return nil }
    if inputLayers.contains(layer) { return split(tensor.shape, at: 1) }
    if outputLayers.contains(layer) { return split(tensor.shape, at: 2) }
    return nil
  }

  private static let inputLayers: Set<String> = [
    "query", "key", "value", "query_dense", "key_dense", "value_dense", "q_proj", "k_proj", "v_proj",
  ]
  private static let outputLayers: Set<String> = ["attention_output", "output_dense", "out", "o_proj", "out_proj"]

  private static func split(_ shape: [Int], at axis: Int) -> (rows: Int, columns: Int) {
    (shape[..<axis].reduce(1, *), shape[axis...].reduce(1, *))
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
        throw ConversionError.globMatchesNothing(member: "ties", glob: glob, path: path)
      }
      for member in members {
        if let other = taken.updateValue(glob, forKey: member) {
          throw ConversionError.badMember(
            member: "ties", value: glob, reason: "'\(other)' ties '\(layers[member].name)' already")
        }
      }
      return members
    }
  }
}
