import Checkpoints
import Files
import Recipes

/// What can keep a stage of the conversion from being done as asked.
public enum ConversionError: Error, Sendable, Equatable {
  /// A glob of a member of the recipe, as `selection.include`, matches no tensor that it could be for.
  case globMatchesNothing(member: String, glob: String, path: String)
  /// Factors given by hand do not fit the matrix.
  case shapeDoesNotFit(tensor: String, rows: Int, columns: Int, shape: String)
  /// A member of the recipe has a value that can't be used.
  case badMember(member: String, value: String, reason: String)
  /// No tensor is left to decompose.
  /// `dense` names the largest tensors, and why they are not decomposed.
  case nothingToDecompose(path: String, dense: String?)
  /// A profile, a plan and a model do not belong together.
  case mismatch(path: String, tensor: String, reason: String)
  /// A file between stages, or of statistics or masks, can't be used.
  case stageFile(path: String, reason: String)
  /// The measured errors of some tensors are above the maximum.
  case errorAboveMaximum(maximum: Double, tensors: [(name: String, error: Double)])
  /// A Keras archive is asked for but the source was none.
  case noKerasArchive(path: String)
  /// A tensor can't be written into the file that is asked for.
  case notRestorable(path: String, tensor: String, reason: String)
  /// A checkpoint is a part of a conversion where the whole is asked for.
  case onePart(path: String, index: Int, count: Int)
  /// Parts that do not make a whole.
  case notMergeable(path: String, reason: String)

  public static func == (a: ConversionError, b: ConversionError) -> Bool { a.description == b.description }
}

extension ConversionError: CustomStringConvertible {
  public var description: String { text { "'\($0)'" } }

  /// A text with the reader's names of the members that let more tensors be decomposed.
  private static func naming(_ text: String, _ name: (String) -> String) -> String {
    ["selection.convolutions", "selection.experts", "selection.include"].reduce(text) { text, member in
      text.split(separator: member, omittingEmptySubsequences: false).joined(separator: name(member))
    }
  }

  /// What is wrong, with the names that the reader knows the members of a recipe by: `dtype` may be `--dtype` to him.
  public func text(naming name: (String) -> String) -> String {
    switch self {
    case .globMatchesNothing(let member, let glob, let path):
      "\(escaped(path, limit: 4096)): \(name(member)) '\(escaped(glob))' matches no matrix that can be decomposed; "
        + "'mpo inspect' lists the names"
    case .shapeDoesNotFit(let tensor, let rows, let columns, let shape):
      "tensor '\(escaped(tensor))' is \(rows) × \(columns): the factors \(shape) do not multiply to that; row factors "
        + "must multiply to \(rows) and column factors to \(columns), or to at most 1/16 more (the rest is padding)"
    case .badMember(let member, let value, let reason):
      "\(name(member)) '\(escaped(value))': \(reason)"
    case .nothingToDecompose(let path, let dense):
      "\(escaped(path, limit: 4096)): has no matrix to decompose (floating-point, both sides at least "
        + "\(TensorSelection.minimumSide), not excluded); choose others with \(name("selection.include"))"
        + (dense.map { "; the largest tensors that stay dense: " + Self.naming($0, name) } ?? "")
    case .mismatch(let path, let tensor, let reason):
      "\(escaped(path, limit: 4096)): tensor '\(escaped(tensor))': \(reason)"
    case .stageFile(let path, let reason):
      "\(escaped(path, limit: 4096)): \(Self.naming(reason, name))"
    case .errorAboveMaximum(let maximum, let tensors):
      "the measured relative error is above \(maximum) for "
        + tensors.prefix(3).map { "'\(escaped($0.name))' (\($0.error))" }.joined(separator: ", ")
        + (tensors.count > 3 ? " and \(tensors.count - 3) more" : "")
        + "; store the cores in a wider \(name("dtype")) (and without \(name("central")) int8), or allow a larger error"
    case .noKerasArchive(let path):
      "\(escaped(path, limit: 4096)): its source was not a Keras archive, so there is no model to put the weights into; "
        + "restore to an .h5 or a .safetensors file"
    case .onePart(let path, let index, let count):
      "\(escaped(path, limit: 4096)): is part \(index) of \(count) of a conversion; join all of them with 'mpo merge' first"
    case .notMergeable(let path, let reason): "\(escaped(path, limit: 4096)): \(reason)"
    case .notRestorable(let path, let tensor, let reason):
      "\(escaped(path, limit: 4096)): tensor '\(escaped(tensor))': \(reason)"
    }
  }
}
