import Checkpoints
import Foundation
import TestSupport
import Testing

extension TemporaryFolder {
  /// Writes a safetensors file with random matrices of these sides, of full rank or a product of vectors.
  func writeModel(
    _ matrices: [String: (rows: Int, columns: Int)], isRankOne: Bool = false, to name: String
  ) throws -> String {
    let tensors = matrices.sorted { $0.key < $1.key }.map {
      TensorInfo(name: $0.key, dtype: .f32, shape: [$0.value.rows, $0.value.columns])
    }
    let writer = try SafetensorsWriter(path: path + "/" + name, tensors: tensors)
    var generator = SeededGenerator(seed: 1)
    for tensor in tensors {
      var values = (0..<tensor.elementCount).map { _ in Float.random(in: -1...1, using: &generator) }
      if isRankOne {
        let columns = tensor.shape[1]
        for index in values.indices.reversed() { values[index] = values[index / columns] * values[index % columns] }
      }
      try values.withUnsafeBytes { try writer.write($0, to: tensor.name) }
    }
    try writer.finish()
    return path + "/" + name
  }
}

/// The built executable.
enum Tool {
  /// It lies beside the tests.
  static let path: String = {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
    return URL(filePath: own).deletingLastPathComponent().path + "/mpo"
  }()

  /// What a run left.
  struct Result {
    /// 128 + n when it was ended by signal n.
    let status: Int32
    let output: String
    let messages: String

    /// The output as a JSON object.
    var json: [String: Any] {
      get throws { try #require(JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any]) }
    }
  }

  /// A run that has begun.
  final class Run {
    private let process: pid_t
    private let streams: TemporaryFolder

    /// - Parameters:
    ///   - input: a file for standard input.
    ///   - output: a descriptor for standard output.
    init(program: String = Tool.path, _ arguments: [String], input: String = "/dev/null", output: Int32? = nil) throws {
      streams = try TemporaryFolder()
      var actions = posix_spawn_file_actions_t()
      posix_spawn_file_actions_init(&actions)
      defer { posix_spawn_file_actions_destroy(&actions) }
      posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0)
      let flags = O_WRONLY | O_CREAT | O_TRUNC
      if let output {
        posix_spawn_file_actions_adddup2(&actions, output, 1)
      } else {
        posix_spawn_file_actions_addopen(&actions, 1, streams.path + "/output", flags, 0o600)
      }
      posix_spawn_file_actions_addopen(&actions, 2, streams.path + "/messages", flags, 0o600)
      // Threads of the tests may have signals blocked, which a child would inherit.
      var attributes = posix_spawnattr_t()
      posix_spawnattr_init(&attributes)
      defer { posix_spawnattr_destroy(&attributes) }
      var none = sigset_t()
      sigemptyset(&none)
      posix_spawnattr_setsigmask(&attributes, &none)
      posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
      var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) }
      defer { for word in words { free(word) } }
      words.append(nil)
      var process = pid_t()
      let code = posix_spawn(&process, program, &actions, &attributes, words, environ)
      try #require(code == 0, "\(program): \(String(cString: strerror(code)))")
      self.process = process
    }

    /// What it has written to stderr so far.
    var messages: String { text("messages") }

    /// Waits until stderr has `text` in it.
    func waitForMessage(_ text: String) throws {
      let deadline = Date.now + 60
      while !messages.contains(text) {
        try #require(Date.now < deadline, "'\(text)' is not in: \(messages)")
        usleep(1000)
      }
    }

    func send(_ signal: Int32) { kill(process, signal) }

    func finish() -> Result {
      var status: Int32 = 0
      while waitpid(process, &status, 0) < 0, errno == EINTR {}
      let code = status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + (status & 0x7F)
      return Result(status: code, output: text("output"), messages: text("messages"))
    }

    private func text(_ name: String) -> String {
      String(decoding: FileManager.default.contents(atPath: streams.path + "/" + name) ?? Data(), as: UTF8.self)
    }
  }

  static func run(_ arguments: String..., input: String = "/dev/null", output: Int32? = nil) throws -> Result {
    try Run(arguments, input: input, output: output).finish()
  }

  /// Runs a line of shell, with `$MPO` for the executable.
  static func shell(_ line: String) throws -> Result {
    try Run(program: "/bin/sh", ["-c", "MPO='\(path)'; " + line]).finish()
  }
}

/// Checks that a run failed with one line on stderr that has all of `parts` in it, and nothing on stdout.
func expectFailure(
  _ result: Tool.Result, _ parts: String..., status: Int32 = 1, at location: SourceLocation = #_sourceLocation
) {
  #expect(result.status == status, "\(result.messages)", sourceLocation: location)
  #expect(result.output.isEmpty, sourceLocation: location)
  let lines = result.messages.split(separator: "\n", omittingEmptySubsequences: false)
  #expect(lines.count == 2 && lines.last == "", "\(result.messages)", sourceLocation: location)
  #expect(result.messages.hasPrefix("mpo: "), "\(result.messages)", sourceLocation: location)
  for part in parts {
    #expect(result.messages.contains(part), "'\(part)' is not in: \(result.messages)", sourceLocation: location)
  }
}
