import Checkpoints
import Files

/// What is wrong with a recipe that was read from a file.
public enum RecipeError: Error, Sendable, Equatable {
  /// Not YAML. Lines count from 1; nil where the parser does not say.
  case syntax(path: String, line: Int?, reason: String)
  /// A member that no recipe has; `nearest` is the one whose name is most like it.
  case unknownMember(path: String, line: Int?, member: String, nearest: String)
  /// A member of another type, or of a value that is not allowed.
  case badMember(path: String, line: Int?, member: String, allowed: String)
  /// Members that do not go together.
  case conflict(path: String, RecipeConflict)
}

extension RecipeError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .syntax(let path, let line, let reason):
      "\(Self.place(path, line)): is not YAML: \(escaped(reason, limit: 400))"
    case .unknownMember(let path, let line, let member, let nearest):
      "\(Self.place(path, line)): a recipe has no member '\(escaped(member))'; the nearest is '\(nearest)'"
    case .badMember(let path, let line, let member, let allowed):
      "\(Self.place(path, line)): '\(escaped(member))' must be \(allowed)"
    case .conflict(let path, let conflict): "\(Self.place(path, nil)): " + conflict.text { "'\($0)'" }
    }
  }

  private static func place(_ path: String, _ line: Int?) -> String {
    escaped(path, limit: 4096) + (line.map { ", line \($0)" } ?? "")
  }
}
