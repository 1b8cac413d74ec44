#if LIBFUZZER
  import CLibFuzzer
  import Foundation
  import Glibc

  /// libFuzzer: it keeps the inputs that reach something new, and goes on from those. Builds for it are those of
  /// `tools/fuzz --minutes`.
  enum CoverageGuidedFuzzer {
    /// Reads an input as `MPOFuzz` does. libFuzzer calls a function without a context, from one thread.
    nonisolated(unsafe) private static var read: ([UInt8]) throws -> Void = { _ in }
    /// Called when the time is over.
    nonisolated(unsafe) private static var finish: () -> Void = {}

    /// Reads inputs until the time is over. What ends the process is kept by libFuzzer, as are the inputs it goes on from.
    ///
    /// - Parameters:
    ///   - options: libFuzzer's own, as `-name=value`, and its folders: the first for what it finds.
    ///   - read: must throw what no input may lead to only.
    ///   - finish: is called in the end, if nothing was found.
    static func run(
      _ options: [String], read: @escaping ([UInt8]) throws -> Void, finish: @escaping () -> Void
    ) {
      self.read = read
      self.finish = finish
      atexit { CoverageGuidedFuzzer.finish() }
      var words: [UnsafeMutablePointer<CChar>?] = (["mpo-fuzz"] + options).map { strdup($0) }
      var count = CInt(words.count)
      words.append(nil)
      words.withUnsafeMutableBufferPointer { words in
        var arguments = words.baseAddress
        _ = LLVMFuzzerRunDriver(&count, &arguments) { input, size in
          do {
            try CoverageGuidedFuzzer.read(Array(UnsafeBufferPointer(start: input, count: size)))
          } catch {
            FileHandle.standardError.write(Data("mpo-fuzz: \(error)\n".utf8))
            abort()
          }
          return 0
        }
      }
    }
  }
#endif
