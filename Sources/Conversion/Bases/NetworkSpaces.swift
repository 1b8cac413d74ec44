import Checkpoints
import Recipes
import TensorNetworks

/// Which side of which matrix belongs to which space of a network: the residual stream as it is read, the stream as it is
/// written to, the hidden neurons of a layer, or a space of its own.
struct NetworkSpaces: Sendable {
  /// What a side's coordinates may be exchanged for.
  enum Space: Sendable, Hashable {
    /// One orthogonal matrix for all sides of this space.
    case rotated(String)
    /// One order of the neurons for all sides of this space.
    case sorted(String)
  }

  /// Of the rows and columns of each matrix, by the name of its tensor.
  private let spaces: [TensorName: (rows: Space, columns: Space)]

  /// A rotation is worth its numbers where they are at most this part of those of the matrices that share it.
  private static let rotationShare = 0.05

  /// - Parameters:
  ///   - rules: spaces that are not what the names of the matrices say.
  ///   - inputs: the side of a matrix that the layer's inputs are on.
  init(
    _ matrices: [WeightMatrix], rules: [SpaceRule] = [], inputs: (WeightMatrix) -> CalibrationStatistics.Axis
  ) {
    var spaces: [TensorName: (rows: Space, columns: Space)] = [:]
    var elements: [Space: Int] = [:]
    // Sides whose space somebody has said.
    var wanted: Set<TensorName> = []
    for matrix in matrices {
      let parts = matrix.name.split(whereSeparator: { $0 == "." || $0 == "/" }).map(String.init)
      let isInputRows = inputs(matrix) == .rows
      let named = Self.spaces(of: parts)
      let rules = rules.filter { matches($0.glob, matrix.name) }
      func ruled(_ side: LinkRule.Side, _ named: Space?) -> Space? {
        guard let rule = rules.last(where: { $0.side == nil || $0.side == side }) else { return named }
        if rule.side != nil {
          wanted.insert(TensorName("\(matrix.name).\((side == .inputs) == isInputRows ? "rows" : "columns")"))
        }
        return Self.space(rule.space, side)
      }
      let (inputSpace, outputSpace) = (ruled(.inputs, named.inputs), ruled(.outputs, named.outputs))
      let (rowSpace, columnSpace) = isInputRows ? (inputSpace, outputSpace) : (outputSpace, inputSpace)
      func sized(_ space: Space?, _ side: String, _ size: Int) -> Space {
        switch space {
        case nil: .sorted("\(matrix.name).\(side)")
        case .rotated(let name): .rotated("\(name).\(size)")
        case .sorted(let name): .sorted("\(name).\(size)")
        }
      }
      let found = (rows: sized(rowSpace, "rows", matrix.rows), columns: sized(columnSpace, "columns", matrix.columns))
      spaces[TensorName(matrix.name)] = found
      for space in [found.rows, found.columns] { elements[space, default: 0] += matrix.rows * matrix.columns }
    }
    // A rotation that few matrices share costs more than it saves.
    func affordable(_ space: Space, _ name: String, _ side: String, _ size: Int) -> Space {
      guard case .rotated = space, !wanted.contains(TensorName("\(name).\(side)")),
        Double(size * size) > Self.rotationShare * Double(elements[space] ?? 0)
      else { return space }
      return .sorted("\(name).\(side)")
    }
    for matrix in matrices {
      let key = TensorName(matrix.name)
      guard let (rows, columns) = spaces[key] else { continue }
      spaces[key] = (
        affordable(rows, matrix.name, "rows", matrix.rows), affordable(columns, matrix.name, "columns", matrix.columns)
      )
    }
    self.spaces = spaces
  }

  func spaces(of matrix: String) -> (rows: Space, columns: Space)? { spaces[TensorName(matrix)] }

  /// What a rule calls a space; nil for one of the side's own.
  private static func space(_ name: String, _ side: LinkRule.Side) -> Space? {
    switch name {
    case SpaceRule.own: nil
    case SpaceRule.stream: .rotated(side == .inputs ? "stream.read" : "stream.written")
    default: .rotated(name)
    }
  }

  private static let readers: Set<String> = [
    "q_proj", "k_proj", "v_proj", "qkv_proj", "query", "key", "value", "query_key_value", "c_attn", "qkv", "q_lin",
    "k_lin", "v_lin", "in_proj",
  ]
  private static let attentionWriters: Set<String> = ["o_proj", "out_proj", "out_lin"]
  private static let expanders: Set<String> = [
    "gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "wi", "wi_0", "wi_1", "w1", "w3", "dense_h_to_4h", "lin1",
  ]
  private static let contractors: Set<String> = ["down_proj", "fc2", "wo", "w2", "dense_4h_to_h", "lin2"]

  /// The spaces of the inputs and outputs of a matrix, as its name says; nil for one of its own.
  private static func spaces(of parts: [String]) -> (inputs: Space?, outputs: Space?) {
    let read = Space.rotated("stream.read")
    let written = Space.rotated("stream.written")
    let layer = parts.lastIndex { $0.allSatisfy(\.isNumber) }.map { parts[...$0].joined(separator: ".") } ?? ""
    let hidden = Space.sorted(layer.isEmpty ? "hidden" : "\(layer).hidden")
    let names = Set(parts)
    let isAttention = parts.contains { ["attention", "attn", "self_attn", "crossattention"].contains($0) }
    if names.contains("c_proj") || names.contains("dense") && names.contains("output") {
      return (isAttention ? nil : hidden, written)
    }
    if names.contains("intermediate") { return (read, hidden) }
    if !names.isDisjoint(with: readers) { return (read, nil) }
    if !names.isDisjoint(with: attentionWriters) || isAttention && names.contains("dense") { return (nil, written) }
    if !names.isDisjoint(with: expanders) { return (read, hidden) }
    if !names.isDisjoint(with: contractors) { return (hidden, written) }
    return (nil, nil)
  }
}
