import ArgumentParser
import Conversion
import Glibc

/// A part of the work, as options name it: `2/8`, or what the task of a Slurm array is.
enum PartArgument {
  static let help = "k/n|slurm[/n]"

  /// - Throws: `ValidationError` for what is no part, with the reason.
  static func parse(_ text: String) throws -> SourceNetwork.Part {
    try parse(text) { name in getenv(name).map { String(cString: $0) } }
  }

  /// - Parameter variable: of the environment.
  static func parse(_ text: String, variable: (String) -> String?) throws -> SourceNetwork.Part {
    let words = text.split(separator: "/", omittingEmptySubsequences: false)
    if words[0] == "slurm", words.count <= 2 {
      let count = words.count == 2 ? Int(words[1]) : nil
      guard words.count == 1 || count ?? 0 >= 1 else {
        throw ValidationError("N of slurm/N must be a number of at least 1.")
      }
      return try ofSlurm(count: count, variable)
    }
    let numbers = words.map { Int($0) }
    guard numbers.count == 2, let index = numbers[0], let count = numbers[1],
      let part = SourceNetwork.Part(index: index, count: count)
    else { throw ValidationError("A part is K/N with K from 1 to N; in a Slurm array it may be slurm or slurm/N.") }
    return part
  }

  /// The part that a task of a Slurm array is.
  /// - Parameter count: of all parts; nil to take the array for all of them, which it must not have gaps for.
  private static func ofSlurm(count: Int?, _ variable: (String) -> String?) throws -> SourceNetwork.Part {
    func number(_ name: String) -> Int? { variable("SLURM_ARRAY_TASK_" + name).flatMap { Int($0) } }
    guard let task = number("ID") else {
      throw ValidationError(
        "SLURM_ARRAY_TASK_ID is not set: this is not a task of a Slurm array (sbatch --array=1-N); elsewhere give K/N."
      )
    }
    if let count {
      guard let part = SourceNetwork.Part(index: task, count: count) else {
        throw ValidationError(
          "The array's task \(task) is not one of 1 to \(count); submit it with --array=1-\(count).")
      }
      return part
    }
    guard let first = number("MIN"), let last = number("MAX"), let tasks = number("COUNT") else {
      throw ValidationError(
        "SLURM_ARRAY_TASK_MIN, _MAX and _COUNT are not all set; give the number of parts: slurm/N.")
    }
    guard last - first + 1 == tasks, first == 0 || first == 1 else {
      throw ValidationError(
        "The array has \(tasks) tasks from \(first) to \(last), so some parts are missing, as in a rerun; give the number "
          + "of parts: slurm/N, with the tasks 1 to N.")
    }
    guard let part = SourceNetwork.Part(index: task - first + 1, count: tasks) else {
      throw ValidationError("SLURM_ARRAY_TASK_ID is \(task), which is not from \(first) to \(last).")
    }
    return part
  }
}
